"""Mask R-CNN with FPN on COCO; a config adds the backbone, its channels and what it is trained with."""

_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', './coco_3x.py']
