_base_ = './cascade_maskrcnn_hornet_t_coco.py'
checkpoint = 'hybrid://hornet_t_gf_in1k'

model = dict(backbone=dict(arch='tiny_gf', init_cfg=dict(checkpoint=checkpoint)))
