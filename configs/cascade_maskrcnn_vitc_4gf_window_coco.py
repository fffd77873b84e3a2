_base_ = './cascade_maskrcnn_vitc_4gf_coco.py'

# Attention in windows of 14x14 tokens in all blocks but four, as ViTDet.
model = dict(backbone=dict(window_size=14))
