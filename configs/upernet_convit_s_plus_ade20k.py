_base_ = './upernet_convit_s_ade20k.py'

model = dict(
    backbone=dict(arch='small_plus'),
    decode_head=dict(in_channels=[576, 576, 576, 576]),
    auxiliary_head=dict(in_channels=576),
)
