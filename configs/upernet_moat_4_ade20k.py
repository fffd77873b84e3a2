_base_ = './_base_/upernet_ade20k_640.py'
checkpoint = 'hybrid://moat_4_in22k_ft_in1k_512'

# The authors' recipe for this framework is not published; this is ConvNeXt's.
model = dict(
    # MOAT-2 to -4 were trained on images from -1 to 1.
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    # norm_eval: every block has BatchNorm, and two images per GPU are too few for its statistics.
    backbone=dict(
        _delete_=True,
        type='MOAT',
        arch='4',
        drop_path_rate=0.7,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=8e-5, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='stage_wise', decay_rate=0.9, num_layers=12),
)
