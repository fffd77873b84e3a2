"""What training needs beyond MMEngine. Importing registers it; see the modules."""

from . import distillation, hooks, layer_decay, sampling, sharding

__all__ = ['distillation', 'hooks', 'layer_decay', 'sampling', 'sharding']
