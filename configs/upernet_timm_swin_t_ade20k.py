_base_ = './_base_/upernet_ade20k.py'
checkpoint = 'hybrid://timm_swin_t_in1k'

# Swin's own recipe, which has no layer decay.
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmPyramid',
        arch='swin_tiny_patch4_window7_224',
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=1.0, num_layers=12),
)
