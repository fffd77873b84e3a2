"""One file per architecture family; `pyramid.py` is the contract that they share."""

from .botnet import BoTNet
from .ceit import CeiT
from .coatnet import CoAtNet
from .conv2former import Conv2Former
from .conv2former_isotropic import IsotropicConv2Former
from .convit import ConViT
from .cvt import CvT
from .hornet import HorNet
from .moat import MOAT
from .moganet import MogaNet
from .pyramid import PyramidBackbone
from .replknet import RepLKNet
from .slak import SLaK
from .timm import TimmPyramid
from .timm_plain import TimmPlainPyramid
from .vit import ViT

__all__ = [
    'MOAT',
    'BoTNet',
    'CeiT',
    'CoAtNet',
    'ConViT',
    'Conv2Former',
    'CvT',
    'HorNet',
    'IsotropicConv2Former',
    'MogaNet',
    'PyramidBackbone',
    'RepLKNet',
    'SLaK',
    'TimmPlainPyramid',
    'TimmPyramid',
    'ViT',
]
