_base_ = './upernet_timm_tf_efficientnet_lite0_ade20k.py'
checkpoint = 'hybrid://timm_tf_efficientnet_lite2_in1k_260'

model = dict(
    backbone=dict(arch='tf_efficientnet_lite2', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[24, 48, 120, 352]),
    auxiliary_head=dict(in_channels=120),
)
