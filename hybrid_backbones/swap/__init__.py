"""A backbone of ours in the place of any detector's or segmentor's own."""

from .backbone import build_stages, swap_backbone, write_swapped

__all__ = ['build_stages', 'swap_backbone', 'write_swapped']
