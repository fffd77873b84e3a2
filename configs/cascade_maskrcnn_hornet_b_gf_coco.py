_base_ = './cascade_maskrcnn_hornet_b_coco.py'

model = dict(backbone=dict(arch='base_gf'))
