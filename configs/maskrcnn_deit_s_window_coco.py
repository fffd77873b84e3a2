_base_ = './maskrcnn_deit_s_coco.py'
checkpoint = 'hybrid://deit_s_in1k'

# Attention in windows of 14x14 tokens in all blocks but four, as ViTDet.
model = dict(backbone=dict(window_size=14, init_cfg=dict(checkpoint=checkpoint)))
