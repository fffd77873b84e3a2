_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://tiny_moat_0_in1k_256'

# The authors' recipe for this framework is not published; this is ConvNeXt's.
model = dict(
    # norm_eval: every block has BatchNorm, and two images per GPU are too few for its statistics.
    backbone=dict(
        _delete_=True,
        type='MOAT',
        arch='tiny_0',
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[32, 64, 128, 256]),
    auxiliary_head=dict(in_channels=128),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=6),
)
