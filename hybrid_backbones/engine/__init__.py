"""What training needs beyond MMEngine. Importing registers it; see the modules."""

from . import checkpoint, distillation, hooks, layer_decay, loading, model_checks, sampling

__all__ = ['checkpoint', 'distillation', 'hooks', 'layer_decay', 'loading', 'model_checks', 'sampling']
