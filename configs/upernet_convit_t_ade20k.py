_base_ = './upernet_convit_s_ade20k.py'
checkpoint = 'hybrid://convit_t_in1k'

model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
