_base_ = './upernet_vitc_4gf_ade20k.py'

model = dict(
    backbone=dict(arch='c_1gf'),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
