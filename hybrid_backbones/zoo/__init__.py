"""What recognises and describes a checkpoint file by all registered networks."""

from .identify import Match, convert, identify, match_state

__all__ = ['Match', 'convert', 'identify', 'match_state']
