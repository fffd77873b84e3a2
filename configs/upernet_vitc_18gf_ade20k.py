_base_ = './upernet_vitc_4gf_ade20k.py'

model = dict(
    backbone=dict(arch='c_18gf'),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
