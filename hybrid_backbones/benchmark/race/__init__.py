"""Races: the runs of a sweep that are behind stop early, and those that are ahead go on."""

from .halving import Halving, Outcome, replay
from .running import run_race

__all__ = ['Halving', 'Outcome', 'replay', 'run_race']
