_base_ = './upernet_convit_s_ade20k.py'
checkpoint = 'hybrid://convit_b_in1k'

model = dict(
    backbone=dict(arch='base', init_cfg=dict(checkpoint=checkpoint)),
    decode_head=dict(in_channels=[768, 768, 768, 768]),
    auxiliary_head=dict(in_channels=768),
)
