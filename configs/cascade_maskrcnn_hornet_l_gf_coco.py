_base_ = './cascade_maskrcnn_hornet_l_coco.py'
checkpoint = 'hybrid://hornet_l_gf_in22k'

# The filters of published files, learned at 224 pixels, are resized as they are loaded.
model = dict(backbone=dict(arch='large_gf', filter_image_size=384, init_cfg=dict(checkpoint=checkpoint)))
