"""Mixed precision: MMEngine's `AmpOptimWrapper` refuses CPUs, where autocast works; mmdet rounds regions to bf16.

On a CPU bf16 is the default: it has the exponent range of fp32, so that gradients need no scaling.
"""

from contextlib import contextmanager
from types import ModuleType

from . import import_hooks
from .log import log_patch

# Instruction sets by torch's names, fastest first.
_BF16 = {'amx_tile': 'AMX', 'avx512_bf16': 'AVX512_BF16', 'bf16': 'Arm BF16'}
_FP16 = {'amx_fp16': 'AMX', 'avx512_fp16': 'AVX512_FP16'}


def _patch_wrapper(module: ModuleType) -> None:
    cls = module.AmpOptimWrapper
    if 'hybrid_backbones' in cls.__init__.__module__:
        return
    original_init, original_state_dict, original_context = cls.__init__, cls.state_dict, cls.optim_context

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
        from mmengine.device import get_device

        if get_device() != 'cpu':
            original_init(self, loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        super(cls, self).__init__(**kwargs)
        self.cast_dtype = _cpu_dtype(dtype)
        self.loss_scaler = _cpu_scaler(self.cast_dtype, loss_scale)
        self._scale_update_param = loss_scale if isinstance(loss_scale, float) else None
        name = str(self.cast_dtype).removeprefix('torch.')
        slow = '' if fast_instructions(name) else f'; it has no {name} instructions, so that float32 is faster'
        log_patch('amp', f'no accelerator; AmpOptimWrapper(dtype={dtype!r}) trains in {name} on the CPU{slow}')

    @contextmanager
    def optim_context(self, model):
        import torch

        if self.loss_scaler._device == 'cpu':
            # On CPUs MMEngine's autocast supports bfloat16 only.
            with super(cls, self).optim_context(model), torch.autocast('cpu', dtype=self.cast_dtype):
                yield
        else:
            with original_context(self, model):
                yield

    def state_dict(self):
        state = original_state_dict(self)
        # The run may be resumed on a GPU, whose scaler refuses an empty state.
        if not state['loss_scaler']:
            del state['loss_scaler']
        return state

    cls.__init__, cls.state_dict, cls.optim_context = __init__, state_dict, optim_context


def _patch_extractor(module: ModuleType) -> None:
    cls = module.SingleRoIExtractor
    original = cls.forward
    if original.__module__ == __name__:
        return

    def forward(self, feats, rois, roi_scale_factor=None):
        import torch

        # mmdet gives regions the features' dtype; bf16 has 8 bits, and 1003 pixels become 1004.
        dtype = feats[0].dtype
        if dtype is torch.bfloat16:
            log_patch('regions', 'mmdet would round the corners of regions to bfloat16; their features are float32')
            feats = tuple(feat.float() for feat in feats)
        return original(self, feats, rois, roi_scale_factor).to(dtype)

    cls.forward = forward


def bf16_instructions() -> str:
    """The CPU's own bf16 arithmetic: 'AMX', 'AVX512_BF16', 'Arm BF16', or '' where float32 emulates it."""
    import torch

    features = {name: getattr(torch.cpu, f'_is_{name}_supported', lambda: False)() for name in _BF16}
    features |= getattr(torch.cpu, 'get_capabilities', dict)()
    return next((label for name, label in _BF16.items() if features.get(name)), '')


def fast_instructions(dtype: str) -> str:
    """The CPU's own arithmetic in 'bfloat16' or 'float16', '' where float32 emulates it."""
    import torch

    if dtype == 'bfloat16':
        return bf16_instructions()
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return next((label for name, label in _FP16.items() if capabilities.get(name)), '')


def _cpu_dtype(dtype):
    import torch

    name = str(dtype).removeprefix('torch.')
    if name not in ('None', 'float16', 'bfloat16'):
        raise ValueError(
            f'AmpOptimWrapper(dtype={dtype!r}) on a CPU: expected bfloat16 (or None, the same) or float16; for float32 '
            'use OptimWrapper'
        )
    return torch.bfloat16 if name == 'None' else getattr(torch, name)


def _cpu_scaler(dtype, loss_scale):
    import torch

    if loss_scale != 'dynamic' and not isinstance(loss_scale, (float, dict)):
        raise TypeError(f"AmpOptimWrapper(loss_scale={loss_scale!r}): expected 'dynamic', a float or a dict")
    options = loss_scale if isinstance(loss_scale, dict) else {}
    if isinstance(loss_scale, float):
        options = dict(init_scale=loss_scale)
    if dtype is torch.bfloat16:
        options = dict(enabled=False)
    return torch.amp.GradScaler('cpu', **options)


def install() -> None:
    import_hooks.after('mmengine.optim.optimizer.amp_optimizer_wrapper', _patch_wrapper)
    import_hooks.after('mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor', _patch_extractor)
