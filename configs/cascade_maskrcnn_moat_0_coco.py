_base_ = './_base_/cascade_maskrcnn_coco.py'
checkpoint = 'hybrid://moat_0_in1k'

# The authors' recipe for this framework is not published; this is ConvNeXt's.
model = dict(
    # norm_eval: every block has BatchNorm, and two images per GPU are too few for its statistics.
    backbone=dict(
        _delete_=True,
        type='MOAT',
        arch='0',
        drop_path_rate=0.2,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.7, num_layers=6),
)
