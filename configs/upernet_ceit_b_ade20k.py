_base_ = './upernet_ceit_s_ade20k.py'

model = dict(
    backbone=dict(arch='base'),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
