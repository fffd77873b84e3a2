_base_ = './upernet_convit_s_ade20k.py'
checkpoint = None  # none is published

model = dict(
    backbone=dict(arch='small_plus', init_cfg=None),
    decode_head=dict(in_channels=[576, 576, 576, 576]),
    auxiliary_head=dict(in_channels=576),
)
