_base_ = './cascade_maskrcnn_hornet_s_coco.py'
checkpoint = 'hybrid://hornet_s_gf_in1k'

model = dict(backbone=dict(arch='small_gf', init_cfg=dict(checkpoint=checkpoint)))
