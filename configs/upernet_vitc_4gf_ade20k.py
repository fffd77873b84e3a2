_base_ = './_base_/upernet_ade20k.py'

model = dict(
    backbone=dict(_delete_=True, type='ViT', arch='c_4gf', pyramid='multi_depth', drop_path_rate=0.1),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
# Statistics over the GPUs of a distributed run: two images of a GPU are too few.
sync_bn = 'torch'

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(
    optimizer=dict(lr=6e-5, weight_decay=0.01),
    paramwise_cfg=dict(decay_type='layer_wise', decay_rate=0.9, num_layers=12),
)
