_base_ = './upernet_convit_s_ade20k.py'

model = dict(
    backbone=dict(arch='tiny'),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
