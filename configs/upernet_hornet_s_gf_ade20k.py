_base_ = './upernet_hornet_s_ade20k.py'
checkpoint = 'hybrid://hornet_s_gf_in1k'

# The filters of published files, learned at 224 pixels, are resized as they are loaded.
model = dict(backbone=dict(arch='small_gf', filter_image_size=384, init_cfg=dict(checkpoint=checkpoint)))

optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2))
