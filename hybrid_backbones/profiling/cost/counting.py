"""Parameters, multiply-adds and activations of a backbone, detector or segmentor, from the operators that it executes.

Built on torch's `FlopCounterMode`, whose FLOPs are halved: the "FLOPs" of papers are MACs (multiply-adds), and so are
the numbers here. torch's counter ignores operators that it does not know; here an operator has a formula, is listed as
free (`operators`), or is an error.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ...backbones.factory import create_backbone, list_backbones
from ...backbones.pyramid import PyramidBackbone
from ...layers.inference import unwatched
from ...swap.feature_maps import build, on_meta
from ..subjects import create_network
from .operators import FORMULAS, FOURIER, is_free

# Regions in a detector's second stage: boxes, as many as mmdet's configs propose in testing, and masks, as many as an
# image may have detections. These are the numbers of mmdet 2's `forward_dummy`, with which papers count.
BOXES, MASKS = 1000, 100


class UnknownOperatorError(LookupError):
    """An operator was executed whose cost is unknown."""


@dataclass(frozen=True)
class Cost:
    """The cost of one forward pass in inference.

    Attributes:
        parameters: Number of parameters; shared ones count once.
        macs: Multiply-adds that were executed (1 MAC = 2 FLOPs), the sum of `by_operator`.
        textbook_macs: The same by the papers' formulas (`PyramidBackbone.textbook_macs`), for layers that compute them
            differently here.
        activations: Elements in the outputs of convolutions, matrix products and attention (not its scores), as in
            Radosavovic et al. (arXiv 2003.13678), who count convolutions, and fvcore.
        by_operator: Executed multiply-adds by operator, such as `aten.convolution`, without those that have none.
    """

    parameters: int
    macs: int
    textbook_macs: int
    activations: int
    by_operator: dict[str, int]


class _OperatorCheck(TorchDispatchMode):
    """Counts activations, and raises an error for operators whose cost is unknown."""

    def __init__(self, counter: FlopCounterMode) -> None:
        super().__init__()
        self.counter = counter
        self.activations = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        if packet in self.counter.flop_registry:
            self.activations += 0 if packet in FOURIER else tree_leaves(out)[0].numel()
        elif not is_free(func):
            module = max(self.counter.mod_tracker.parents, key=len)
            raise UnknownOperatorError(
                f'{func}, run by {module}, has no known cost. Give it a formula, in FLOPs (2 per MAC), by '
                f'torch.utils.flop_counter.register_flop_formula(torch.ops.{packet}), or add its name to FREE in '
                'hybrid_backbones/profiling/cost/operators.py if it has no multiply-adds'
            )
        return out


class _MetaAsCPU(TorchFunctionMode):
    """Makes tensors on `meta` report `is_cpu`, by which layers choose their algorithm."""

    is_cpu = torch.Tensor.is_cpu.__get__

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func == type(self).is_cpu:
            return True
        return func(*args, **(kwargs or {}))


def count_cost(network: nn.Module, *inputs: Any, **kwargs: Any) -> Cost:
    """Cost of `network(*inputs, **kwargs)` in inference.

    Args:
        network: On any device; set to eval mode for the pass. On `meta` nothing is allocated or computed, and the
            operators that a CPU would execute are counted.
        *inputs: On the device of the network.

    Raises:
        UnknownOperatorError: An operator has no formula; the message names it and its module.
    """
    tensors = [*network.parameters(), *tree_leaves((inputs, kwargs))]
    meta = any(isinstance(t, Tensor) and t.is_meta for t in tensors)
    counter = FlopCounterMode(display=False)
    counter.flop_registry.update(FORMULAS)
    check = _OperatorCheck(counter)
    with ExitStack() as stack, _in_inference(network):
        difference = stack.enter_context(_textbook(network, counter))
        if meta:
            stack.enter_context(_MetaAsCPU())
        stack.enter_context(check)
        stack.enter_context(counter)
        stack.enter_context(unwatched())
        network(*inputs, **kwargs)
    by_operator = {str(op): flops // 2 for op, flops in counter.get_flop_counts().get('Global', {}).items() if flops}
    macs = sum(by_operator.values())
    parameters = sum(p.numel() for p in network.parameters())
    return Cost(parameters, macs, macs + difference[0], check.activations, by_operator)


@contextmanager
def _in_inference(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients, for which torch's module tracker would register hooks; restored afterwards."""
    training = [module for module in network.modules() if module.training]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval().requires_grad_(False)
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad_(True)


@contextmanager
def _textbook(network: nn.Module, counter: FlopCounterMode) -> Iterator[list[int]]:
    """Yields a list whose one element becomes the textbook's multiply-adds minus the executed ones."""
    difference, before, handles = [0], {}, []
    backbones = [module for module in network.modules() if isinstance(module, PyramidBackbone)]
    formulas = {m: b.textbook_macs[type(m)] for b in backbones for m in b.modules() if type(m) in b.textbook_macs}

    def start(module: nn.Module, inputs: tuple) -> None:
        before[module] = counter.get_total_flops()

    def end(module: nn.Module, inputs: tuple, output: Any) -> None:
        executed = (counter.get_total_flops() - before.pop(module)) // 2
        difference[0] += formulas[module](module, inputs, output) - executed

    for module in formulas:
        handles += [module.register_forward_pre_hook(start), module.register_forward_hook(end)]
    try:
        yield difference
    finally:
        for handle in handles:
            handle.remove()


def backbone_cost(name: str, size: tuple[int, int], **options: Any) -> Cost:
    """Cost of a backbone for one image on a CPU, without running it.

    Args:
        name: A backbone of this package, or any name for :func:`hybrid_backbones.profiling.subjects.create_network`,
            such as `timm:resnet50` or `deit_s:window_size=14`.
        size: Height and width of the image in pixels.
        **options: Options of this package's backbone, over those that its name stands for.

    Raises:
        ValueError: The name is unknown, or the network does not take the options.
    """
    is_own = name in list_backbones()
    if options and not is_own:
        raise ValueError(f'{name} takes no options here; they are for {", ".join(list_backbones())}')
    with torch.device('meta'):
        network = create_backbone(name, **options) if is_own else create_network(name, size=size)
        return count_cost(network, torch.empty(1, 3, *size))


class _TwoStages(nn.Module):
    """A two-stage detector of mmdet whose second stage runs on `BOXES` regions, and on `MASKS` for masks."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        kind = type(model.roi_head).__name__
        if kind not in ('StandardRoIHead', 'CascadeRoIHead'):
            raise ValueError(
                f'roi_head {kind}: expected StandardRoIHead or CascadeRoIHead, whose numbers of regions are known. '
                'Count the parts of other detectors with count_cost'
            )
        self.stages = range(model.roi_head.num_stages) if kind == 'CascadeRoIHead' else None
        for extractor in model.modules():
            if type(extractor).__name__ == 'SingleRoIExtractor':
                # It assigns regions to levels by their size, which does not exist on meta; interpolation is free.
                extractor.forward = partial(_regions, extractor)

    def forward(self, images: Tensor) -> None:
        head = self.model.roi_head
        maps = self.model.extract_feat(images)
        if self.model.with_rpn:
            self.model.rpn_head(maps)
        regions = images.new_zeros(len(images) * BOXES, 5)
        for stage in [()] if self.stages is None else [(stage,) for stage in self.stages]:
            head._bbox_forward(*stage, maps, regions)
            if head.with_mask:
                head._mask_forward(*stage, maps, regions[: len(images) * MASKS])


def _regions(extractor: nn.Module, maps: tuple[Tensor, ...], regions: Tensor, *_: Any) -> Tensor:
    """Zeros (regions, C, h, w), of the shape that the extractor returns."""
    return maps[0].new_zeros(len(regions), extractor.out_channels, *extractor.roi_layers[0].output_size)


def model_cost(cfg: Config, size: tuple[int, int]) -> Cost:
    """Cost of a whole detector of mmdet or segmentor of mmseg for one image, without its post-processing.

    Counted like mmdet 2's and mmseg's `get_flops`, which papers use: the second stage of a detector has 1000 boxes and
    100 masks; of auxiliary heads of segmentors only the parameters count. Models whose control flow depends on values
    are run on the CPU.

    Args:
        cfg: With a `model`; no weights are loaded, and it is not changed.
        size: Height and width of the image in pixels: 800x1280 for detectors and 512x2048 for UperNet in papers.

    Raises:
        ValueError: The config has no model, or an unknown second stage.
    """
    if 'model' not in cfg:
        raise ValueError(f'{cfg.filename or "the config"} has no model; expected a detector or segmentor')
    scope = cfg.get('default_scope') or 'mmdet'
    try:
        # Not all backbones can be built on meta.
        model = on_meta(lambda: _build(cfg, scope)).to('meta')
        return _count_model(model, size, 'meta')
    except RuntimeError:  # its control flow depends on values
        return _count_model(_build(cfg, scope), size, 'cpu')


def _build(cfg: Config, scope: str) -> nn.Module:
    return revert_sync_batchnorm(build(cfg.model, scope))


def _count_model(model: nn.Module, size: tuple[int, int], device: str) -> Cost:
    images = torch.zeros(1, 3, *size, device=device)
    with torch.device(device):
        if getattr(model, 'with_roi_head', False) or hasattr(model, 'roi_head'):
            return count_cost(_TwoStages(model), images)
        return count_cost(model, images, _samples(model, size), mode='tensor')


def _samples(model: nn.Module, size: tuple[int, int]) -> list[Any]:
    """A data sample with the image's size."""
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    if hasattr(model, 'decode_head'):
        from mmseg.structures import SegDataSample as Sample
    else:
        from mmdet.structures import DetDataSample as Sample
    return [Sample(metainfo=meta)]
