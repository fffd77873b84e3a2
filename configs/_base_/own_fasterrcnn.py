"""Faster R-CNN, for data of boxes without outlines: `own_maskrcnn.py` without its mask head."""

_base_ = './own_maskrcnn.py'

model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
