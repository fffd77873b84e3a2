"""One file per architecture family; `pyramid.py` is the contract that they share."""

from .botnet import BoTNet
from .coatnet import CoAtNet
from .conv2former import Conv2Former
from .cvt import CvT
from .hornet import HorNet
from .moat import MOAT
from .pyramid import PyramidBackbone
from .replknet import RepLKNet
from .slak import SLaK

__all__ = ['MOAT', 'BoTNet', 'CoAtNet', 'Conv2Former', 'CvT', 'HorNet', 'PyramidBackbone', 'RepLKNet', 'SLaK']
