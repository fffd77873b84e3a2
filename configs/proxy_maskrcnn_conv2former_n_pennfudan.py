"""Mask R-CNN on photographs of pedestrians in minutes, as `proxy_maskrcnn_conv2former_n_coco.py`.

Data: Penn-Fudan in COCO's layout, 100 images to train on and 40 to validate on, one class.
"""

_base_ = './proxy_maskrcnn_conv2former_n_coco.py'

data_root = 'data/pennfudan/'
metainfo = dict(classes=('person',), palette=[(220, 20, 60)])

model = dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
