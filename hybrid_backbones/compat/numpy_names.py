"""mmdet's evaluation of videos (YouTube-VIS) asks NumPy for `np.float`, which NumPy 1.24 removed."""

from types import ModuleType

from . import import_hooks
from .log import log_patch


def _patch_evaluation(module: ModuleType) -> None:
    if hasattr(module.np, 'float'):
        return
    names = ModuleType('numpy', module.np.__doc__)
    names.__dict__.update(vars(module.np), float=float)
    module.np = names
    log_patch('numpy_names', "np.float, which NumPy removed, is Python's float in mmdet's YouTube-VIS evaluation")


def install() -> None:
    import_hooks.after('mmdet.evaluation.functional.ytviseval', _patch_evaluation)
