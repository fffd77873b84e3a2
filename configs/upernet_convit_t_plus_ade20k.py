_base_ = './upernet_convit_s_ade20k.py'

model = dict(
    backbone=dict(arch='tiny_plus'),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
    auxiliary_head=dict(in_channels=256),
)
