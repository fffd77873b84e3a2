"""All hooks of the engine by one name, for configs in pure Python, which import what they use."""

from .batch_errors import NameBatchHook
from .checkpoint import SafeCheckpointHook
from .loading import LoadMatchingHook, StrictCheckpointHook
from .pausing import PauseHook
from .published_models import PublishedNamesHook
from .sampling import ReproducibleRunHook
from .starting_weights import MissingWeightsHook
from .training_hooks import CheckFiniteLossHook, FixedStatisticsHook

__all__ = [
    'CheckFiniteLossHook',
    'FixedStatisticsHook',
    'LoadMatchingHook',
    'MissingWeightsHook',
    'NameBatchHook',
    'PauseHook',
    'PublishedNamesHook',
    'ReproducibleRunHook',
    'SafeCheckpointHook',
    'StrictCheckpointHook',
]
