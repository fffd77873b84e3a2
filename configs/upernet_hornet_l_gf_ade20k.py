_base_ = './upernet_hornet_l_ade20k.py'
checkpoint = 'hybrid://hornet_l_gf_in22k'

# The filters of published files, learned at 224 pixels, are resized as they are loaded.
model = dict(backbone=dict(arch='large_gf', filter_image_size=384, with_cp=True, init_cfg=dict(checkpoint=checkpoint)))

optim_wrapper = dict(clip_grad=dict(max_norm=0.1, norm_type=2))
