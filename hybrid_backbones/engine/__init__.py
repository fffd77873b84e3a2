"""What training needs beyond MMEngine. Importing registers it; see the modules."""

from . import (
    checkpoint,
    distillation,
    layer_decay,
    loading,
    published_models,
    sampling,
    sharding,
    starting_weights,
    training_hooks,
)

__all__ = [
    'checkpoint',
    'distillation',
    'layer_decay',
    'loading',
    'published_models',
    'sampling',
    'sharding',
    'starting_weights',
    'training_hooks',
]
