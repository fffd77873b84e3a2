_base_ = './cascade_maskrcnn_hornet_b_coco.py'
checkpoint = 'hybrid://hornet_b_gf_in1k'

model = dict(backbone=dict(arch='base_gf', init_cfg=dict(checkpoint=checkpoint)))
