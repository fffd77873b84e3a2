_base_ = './upernet_vitc_4gf_ade20k.py'

model = dict(
    backbone=dict(arch='c_36gf'),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]),
    auxiliary_head=dict(in_channels=1024),
)
