"""What training needs beyond MMEngine. Importing registers it; see the modules."""

from . import distillation, hooks, layer_decay, packaged_configs, sampling, sharding

__all__ = ['distillation', 'hooks', 'layer_decay', 'packaged_configs', 'sampling', 'sharding']
