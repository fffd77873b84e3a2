_base_ = './upernet_convit_s_ade20k.py'

model = dict(
    backbone=dict(arch='base_plus'),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]),
    auxiliary_head=dict(in_channels=1024),
)
