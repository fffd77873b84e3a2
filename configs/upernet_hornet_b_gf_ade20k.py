_base_ = './upernet_hornet_b_ade20k.py'
checkpoint = 'hybrid://hornet_b_gf_in1k'

# The filters of published files, learned at 224 pixels, are resized as they are loaded.
model = dict(
    backbone=dict(arch='base_gf', filter_image_size=384, drop_path_rate=0.5, init_cfg=dict(checkpoint=checkpoint))
)

optim_wrapper = dict(clip_grad=dict(max_norm=1.0, norm_type=2))
