_base_ = './upernet_ceit_s_ade20k.py'
checkpoint = 'hybrid://ceit_b_in1k_150e'

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
