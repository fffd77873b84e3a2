_base_ = './upernet_deit_s_ade20k.py'
checkpoint = 'hybrid://deit_t_in1k'

model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
