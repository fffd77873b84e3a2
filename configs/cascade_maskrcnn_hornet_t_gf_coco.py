_base_ = './cascade_maskrcnn_hornet_t_coco.py'

model = dict(backbone=dict(arch='tiny_gf'))
