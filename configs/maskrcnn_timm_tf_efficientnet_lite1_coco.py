_base_ = './maskrcnn_timm_tf_efficientnet_lite0_coco.py'
checkpoint = 'hybrid://timm_tf_efficientnet_lite1_in1k_240'

model = dict(backbone=dict(arch='tf_efficientnet_lite1', init_cfg=dict(checkpoint=checkpoint)))
