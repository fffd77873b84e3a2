_base_ = './upernet_convit_s_ade20k.py'
checkpoint = None  # none is published

model = dict(
    backbone=dict(arch='base_plus', init_cfg=None),
    decode_head=dict(in_channels=[1024, 1024, 1024, 1024]),
    auxiliary_head=dict(in_channels=1024),
)
