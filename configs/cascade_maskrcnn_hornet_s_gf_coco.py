_base_ = './cascade_maskrcnn_hornet_s_coco.py'

model = dict(backbone=dict(arch='small_gf'))
