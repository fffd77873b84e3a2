_base_ = './upernet_convit_s_ade20k.py'
checkpoint = None  # none is published

model = dict(
    backbone=dict(arch='tiny_plus', init_cfg=None),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
    auxiliary_head=dict(in_channels=256),
)
