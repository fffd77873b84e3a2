"""Distributed training on CPUs: MMEngine's launchers and wrapper ask for GPUs, and SyncBN works on GPUs only."""

from types import ModuleType
from unittest import mock

from . import import_hooks
from .log import log_patch


def _patch_launch(module: ModuleType) -> None:
    original = module.init_dist
    if original.__module__ == __name__:
        return

    def init_dist(launcher, backend='nccl', init_backend='torch', **kwargs):
        import torch
        from mmengine.device import get_device

        if get_device() != 'cpu':
            return original(launcher, backend, init_backend, **kwargs)
        if backend == 'nccl':
            log_patch('distributed', 'no GPU; processes talk over gloo instead of nccl')
            backend = 'gloo'
        # All launchers select the GPU of their rank first.
        with mock.patch.object(torch.cuda, 'set_device', lambda device: None):
            return original(launcher, backend, init_backend, **kwargs)

    import_hooks.rebind(original, init_dist)


def _patch_wrapper(module: ModuleType) -> None:
    cls = module.MMDistributedDataParallel
    original = cls.__init__
    if original.__module__ == __name__:
        return

    def __init__(self, module, detect_anomalous_params=False, **kwargs):
        if all(parameter.device.type == 'cpu' for parameter in module.parameters()):
            module = _without_sync_bn(module)
            # MMEngine names the GPU of the local rank; DistributedDataParallel takes none for a model on the CPU.
            kwargs.update(device_ids=None, output_device=None)
        original(self, module, detect_anomalous_params=detect_anomalous_params, **kwargs)

    cls.__init__ = __init__


def _without_sync_bn(model):
    from mmengine.model import revert_sync_batchnorm

    if any('SyncBatchNorm' in type(module).__name__ for module in model.modules()):
        log_patch('syncbn', 'SyncBN needs GPUs; on CPUs each process normalises by its own batch (BN)')
        return revert_sync_batchnorm(model)
    return model


def install() -> None:
    import_hooks.after('mmengine.dist.utils', _patch_launch)
    import_hooks.after('mmengine.model.wrappers.distributed', _patch_wrapper)
