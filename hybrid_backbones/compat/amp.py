"""bf16: MMEngine's `AmpOptimWrapper` refuses CPUs, though autocast works there; mmdet rounds regions to 8 bits."""

from types import ModuleType

from . import hooks
from .notes import note

# Instruction sets by torch's names, fastest first.
_BF16 = {'amx_tile': 'AMX', 'avx512_bf16': 'AVX512_BF16', 'bf16': 'Arm BF16'}


def _mend_wrapper(module: ModuleType) -> None:
    cls = module.AmpOptimWrapper
    if 'hybrid_backbones' in cls.__init__.__module__:
        return
    original_init, original_state_dict = cls.__init__, cls.state_dict

    def __init__(self, loss_scale='dynamic', dtype=None, use_fsdp=False, **kwargs):
        import torch
        from mmengine.device import get_device

        if get_device() != 'cpu':
            original_init(self, loss_scale=loss_scale, dtype=dtype, use_fsdp=use_fsdp, **kwargs)
            return
        super(cls, self).__init__(**kwargs)
        self.cast_dtype = _cpu_dtype(dtype)
        # bf16 has the exponent range of fp32, so that gradients need no scaling.
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
        self._scale_update_param = None
        slow = '' if bf16_instructions() else '; this CPU has no bf16 instructions, so that it is slower than float32'
        note('amp', f'no accelerator; AmpOptimWrapper(dtype={dtype!r}) trains in bfloat16 on the CPU{slow}')

    def state_dict(self):
        state = original_state_dict(self)
        # A scaler of a GPU, where such a run may be resumed, refuses an empty state.
        if not state['loss_scaler']:
            del state['loss_scaler']
        return state

    cls.__init__, cls.state_dict = __init__, state_dict


def _mend_extractor(module: ModuleType) -> None:
    cls = module.SingleRoIExtractor
    original = cls.forward
    if original.__module__ == __name__:
        return

    def forward(self, feats, rois, roi_scale_factor=None):
        import torch

        # mmdet gives regions the features' dtype; bf16 has 8 bits, and 1003 pixels become 1004.
        dtype = feats[0].dtype
        if dtype is torch.bfloat16:
            note('regions', 'mmdet would round the corners of regions to bfloat16; their features are float32')
            feats = tuple(feat.float() for feat in feats)
        return original(self, feats, rois, roi_scale_factor).to(dtype)

    cls.forward = forward


def bf16_instructions() -> str:
    """The CPU's own bf16 arithmetic: 'AMX', 'AVX512_BF16', 'Arm BF16', or '' where float32 emulates it."""
    import torch

    features = {name: getattr(torch.cpu, f'_is_{name}_supported', lambda: False)() for name in _BF16}
    features |= getattr(torch.cpu, 'get_capabilities', dict)()
    return next((label for name, label in _BF16.items() if features.get(name)), '')


def _cpu_dtype(dtype):
    import torch

    name = str(dtype).removeprefix('torch.')
    if name not in ('None', 'float16', 'bfloat16'):
        raise ValueError(
            f'AmpOptimWrapper(dtype={dtype!r}) on a CPU: expected None, float16 or bfloat16 (all train in bfloat16); '
            'for float32 use OptimWrapper'
        )
    return torch.bfloat16


def install() -> None:
    hooks.after('mmengine.optim.optimizer.amp_optimizer_wrapper', _mend_wrapper)
    hooks.after('mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor', _mend_extractor)
