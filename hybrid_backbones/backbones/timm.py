"""Any network of timm as a pyramid: the baselines that hybrid networks are compared with.

timm: PyTorch Image Models by Ross Wightman, https://github.com/huggingface/pytorch-image-models (1.0.31), Apache-2.0.
The network is timm's own, reached through its `forward_intermediates`; its parameters carry timm's names behind
`trunk.`, and files of timm load as they are. timm is imported when the first network is built.

Deliberate differences from timm:

- `out_indices` count the levels of stride 4, 8, 16 and 32, whatever timm's own feature indices are. Of several maps of
  a stride the last one counts, as with timm's features.
- Any image size. Most networks take it as it is, down to 32 pixels, with sizes rounded as their layers do; where a
  network needs multiples, the image is padded with zeros at the right and bottom, and the maps are cropped to
  ceil(H / stride):

  - below 32 pixels, to 32, but for Swin and plain ViTs;
  - Swin, V1 and V2, to its patches of 4 pixels. Windows pad themselves, before they shift, as in Swin's detectors;
    with `pad_before_shift=False` as in timm's network built for that size: padded after the shift, and shifted only
    where the map is larger than one window. timm shrinks windows and their tables to a map that is smaller; here they
    keep their size;
  - MaxViT, to whole windows and grids at every level, 224 pixels for `maxvit_tiny_tf_224`. Padding is part of its
    function there: the grid spans the padded map;
  - CoAtNet, BoTNet, HaloNet and LambdaNet take any size, which timm's do not: see `_timm_hybrids.py`;
  - networks that add up maps of several strides (HRNet, DLA), Twins and some others, to multiples of the last stride;
  - plain ViTs, to their patches; positions are resized as timm does with `dynamic_img_size`.

  Networks that are tied to one size (CoaT, GCViT, Hiera, ...) take images up to the size that they were built
  for, padded to it; `arch=dict(model_name=..., img_size=(H, W))` builds them for another.
- Stages after the last of `out_indices`, the final norm and the classifier are left out of the trunk;
  `create_classifier` has them. An output norm stands on every returned map, unless `out_norm=False`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from math import lcm
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.checkpointing import discard_recomputed_statistics
from ..layers.norm import LayerNorm2d
from ..layers.patch_embed import crop
from ..layers.sizes import ceil_div
from ..registry import register_backbone
from ._efficientnet_files import ADVICE, is_file_of_efficientnet_pytorch, named_as_timm, pads_as_tensorflow
from ._timm_layouts import LAYOUTS
from ._timm_network import (
    complete,
    convert_file,
    file_rules,
    image_statistics,
    last_layers,
    layers_of,
    log_licence,
    parse_name,
    without_decay,
    without_weights,
)
from .pyramid import PyramidBackbone

STRIDES = (4, 8, 16, 32)
# Classes that take multiples of the last stride alone: those that add up maps of different strides, and those that timm
# marks as of one size although their features are the same as if they were built for another.
OF_MULTIPLES = ('CSATv2', 'DLA', 'HieraDet', 'HighResolutionNet', 'SwiftFormer', 'Twins', 'Xcit')

# Ross Wightman's CoAtNets, MaxViTs and MaxxViTs with published weights, by the size that they were trained at.
RW = {
    224: (
        *(f'coatnet_{size}_rw' for size in ('nano', '0', '1', '2', '3', 'bn_0', 'rmlp_nano', 'rmlp_1', 'rmlp_2')),
        *('coatnet_rmlp_1_rw2', 'coatnext_nano_rw'),
        *('maxvit_tiny_rw', 'maxvit_rmlp_small_rw', 'maxvit_rmlp_base_rw', 'maxxvitv2_rmlp_base_rw'),
    ),
    256: (
        *('maxvit_nano_rw', 'maxvit_rmlp_pico_rw', 'maxvit_rmlp_nano_rw', 'maxvit_rmlp_tiny_rw'),
        *('maxxvit_rmlp_nano_rw', 'maxxvit_rmlp_small_rw', 'maxxvitv2_nano_rw'),
    ),
}
# BoTNet, HaloNet, LambdaNet and their mixtures, by the end of timm's names.
BOTNET = {
    '_256': ('botnet26t', 'eca_botnext26ts', 'sebotnet33ts', 'halo2botnet50ts', 'lamhalobotnet50ts'),
    '': ('halonet50ts', 'lambda_resnet50ts'),
}


class _Layout(nn.Module):
    """(N, C, H, W) to (N, H, W, C), where the network goes on in that layout."""

    def __init__(self, channels_last: bool) -> None:
        super().__init__()
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1) if self.channels_last else x


@register_backbone(
    timm_convnext_t=dict(arch='convnext_tiny'),
    timm_convnext_s=dict(arch='convnext_small'),
    timm_convnext_b=dict(arch='convnext_base'),
    timm_swin_t=dict(arch='swin_tiny_patch4_window7_224'),
    timm_swin_s=dict(arch='swin_small_patch4_window7_224'),
    timm_swin_b=dict(arch='swin_base_patch4_window7_224'),
    timm_maxvit_t=dict(arch='maxvit_tiny_tf_224'),
    timm_maxvit_s=dict(arch='maxvit_small_tf_224'),
    timm_maxvit_b=dict(arch='maxvit_base_tf_224'),
    timm_maxvit_l=dict(arch='maxvit_large_tf_224'),
    timm_maxvit_xl=dict(arch='maxvit_xlarge_tf_384'),
    timm_resnet_50=dict(arch='resnet50', out_norm=False),
    timm_efficientnet_b0=dict(arch='efficientnet_b0', out_norm=False),
    timm_efficientnet_b4=dict(arch='efficientnet_b4', out_norm=False),
    timm_efficientnet_lite0=dict(arch='efficientnet_lite0', out_norm=False),
    timm_tf_efficientnet_lite0=dict(arch='tf_efficientnet_lite0', out_norm=False),
    timm_tf_efficientnet_lite1=dict(arch='tf_efficientnet_lite1', out_norm=False),
    timm_tf_efficientnet_lite2=dict(arch='tf_efficientnet_lite2', out_norm=False),
    timm_coatnet_rmlp_2_rw_384=dict(arch='coatnet_rmlp_2_rw_384'),
    **{f'timm_{name}': dict(arch=f'{name}_{side}') for side, names in RW.items() for name in names},
    **{f'timm_{name}': dict(arch=f'{name}{suffix}') for suffix, names in BOTNET.items() for name in names},
)
class TimmPyramid(PyramidBackbone):
    """A network of timm as a pyramid of strides 4, 8, 16, 32.

    timm's CoAtNets are here, rather than among the options of :class:`CoAtNet`, because they differ from it in sixteen
    of timm's own options, and need nothing but attention and pooling of their own at other sizes.

    Args:
        arch: timm's name of the network, any of `timm.list_models()`, or a dict of `model_name` and arguments of its
            constructor, as `dict(model_name='swin_tiny_patch4_window7_224', img_size=384, window_size=12)`.
        out_indices: Levels 0 to 3, of strides 4, 8, 16 and 32, that are returned. Networks that lack some take others:
            a plain ViT of 16-pixel patches has level 2 alone.
        pad_before_shift: Of Swin alone: a map is padded to whole windows and then shifted, as in the published
            detectors of Microsoft, mmdet and mmseg. False is timm's function, of classifiers: shifted, unless it is one
            window, and then padded. They differ wherever a map is no multiple of the window, or is one window.

    The other options are those of :class:`PyramidBackbone`.

    Raises:
        ValueError: Unknown arch, levels that the network does not have, or options that it does not know.
    """

    checkpoint_layouts = LAYOUTS
    tiny_arch = 'test_convnext'
    classifier_options = dict(out_norm=False, pad_before_shift=False)

    def __init__(
        self,
        arch: str | dict[str, Any] = 'convnext_tiny',
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        pad_before_shift: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        import timm

        from ._timm_hybrids import attend_at_any_size
        from ._timm_swin import shift_at_any_size

        self.name, options = parse_name(arch)
        network = without_weights(self.name, options)
        self.options = complete(network, self.name, options, drop_path_rate)
        features = {info['reduction']: i for i, info in enumerate(network.feature_info)}
        widths = {info['reduction']: info['num_chs'] for info in network.feature_info}
        channels = [widths.get(stride, 0) for stride in STRIDES]
        self.image_mean, self.image_std = image_statistics(network)
        # Of the network's final norm: the published detectors of Swin have its 1e-5.
        eps = getattr(getattr(network, 'norm', None), 'eps', 1e-6)
        super().__init__(channels, STRIDES, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self._check_levels(features)
        self._plan_sizes(network)
        self.trunk = timm.create_model(self.name, num_classes=0, **self.options)
        shift_at_any_size(self.trunk, pad_before_shift)
        attend_at_any_size(self.trunk)
        wanted = [features[stride] for stride in self.out_strides]
        self.features = self.trunk.prune_intermediate_layers(wanted, prune_norm=True, prune_head=True)
        self.checkpoint_renames, self.checkpoint_ignores = file_rules(network, self.trunk)
        self._number_layers(network, [features.get(stride) for stride in STRIDES[: self.num_stages]])
        if with_cp:
            self._check_recomputes()
            discard_recomputed_statistics(self.trunk)
        self.finish(out_norm, partial(LayerNorm2d, eps=eps))

    def _check_levels(self, strides: Iterable[int]) -> None:
        missing = sorted(set(self.out_strides) - set(strides))
        if missing:
            raise ValueError(
                f'{self.name} of timm has maps of strides {", ".join(map(str, strides))}, and none of '
                f'{", ".join(map(str, missing))}, which out_indices={self.out_indices} ask for. Give the levels that '
                'it has (0 to 3 are strides 4 to 32); of a plain ViT, TimmPlainPyramid makes four levels'
            )

    def _number_layers(self, network: nn.Module, features: Sequence[int | None]) -> None:
        """Layers of the trunk from 0, the stem, without gaps, and the last one of every level that is built."""
        layers = layers_of(network)
        kept = sorted({layers[name] for name, _ in self.trunk.named_parameters()})
        self.layers = {name: kept.index(layers[name]) for name, _ in self.trunk.named_parameters()}
        self.ends = [0]
        for last in last_layers(network, layers, features):
            self.ends.append(max(self.ends[-1], sum(layer <= last for layer in kept) - 1))
        self.depths = tuple(b - a for a, b in pairwise(self.ends))

    # Image sizes.

    def _plan_sizes(self, network: nn.Module) -> None:
        """What the height and width of an image have to be multiples of, at least, and the one size that fits.

        From the complete network, so that maps do not depend on which are returned.
        """
        from ._timm_hybrids import takes_any_size

        last = network.feature_info[-1]['reduction']
        self.multiple, self.smallest, self.only = (1, 1), (last, last), None
        partitions = [module.partition_size for module in network.modules() if hasattr(module, 'partition_size')]
        if partitions:
            self.multiple = tuple(last * lcm(*sides) for sides in zip(*partitions, strict=True))
        elif self.options.keys() & {'strict_img_size', 'dynamic_img_size'}:
            self.multiple = self.smallest = (network.feature_info[0]['reduction'],) * 2
        elif type(network).__name__ in OF_MULTIPLES:
            self.multiple = last, last
        elif network.default_cfg.get('fixed_input_size') and not takes_any_size(network):
            size = self.options.get('img_size', network.default_cfg['input_size'][1:])
            self.smallest = self.only = (size, size) if isinstance(size, int) else tuple(size)

    def _fit(self, x: Tensor) -> Tensor:
        """Pad an image to a size that the network takes.

        Raises:
            ValueError: It is larger than the only size that the network takes.
        """
        size = x.shape[2:]
        if self.only and (size[0] > self.only[0] or size[1] > self.only[1]):
            raise ValueError(
                f'{self.name} of timm takes images of up to {self.only[0]}x{self.only[1]} pixels, got '
                f'{size[0]}x{size[1]}: what it has learned is tied to the size. Build it for the largest image with '
                f"arch=dict(model_name='{self.name}', img_size=(H, W)), if timm can, or choose a network of any size"
            )
        multiples = (ceil_div(s, m) * m for s, m in zip(size, self.multiple, strict=True))
        # Not the larger of both, for which an exporter knows no least size.
        fitted = [side if side >= least else least for side, least in zip(multiples, self.smallest, strict=True)]
        if not self._pads_always() and tuple(fitted) == tuple(size):
            return x
        return F.pad(x, (0, fitted[1] - size[1], 0, fitted[0] - size[0]))

    def _pads_always(self) -> bool:
        """Also by nothing: an exported program is the same for multiples and for other sizes."""
        return torch.compiler.is_exporting() and self.multiple != (1, 1)

    # What the contract asks for.

    @property
    def min_size(self) -> int:
        return 1  # smaller images are padded

    @property
    def no_weight_decay(self) -> tuple[str, ...]:
        """timm's own choice, by the last part of the names."""
        return without_decay(self.trunk)

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's own conversion of published files, and of tables that were learned at another size.

        Of EfficientNet-PyTorch's and OpenMMLab's Swin, which timm does not know, ours.
        """
        from ._timm_swin import convert_openmmlab, is_of_openmmlab

        if is_of_openmmlab(state):
            return convert_openmmlab(state)
        if is_file_of_efficientnet_pytorch(state):
            network = without_weights(self.name, self.options)
            return named_as_timm(state, network) if pads_as_tensorflow(network) else state
        return convert_file(state, without_weights(self.name, self.options))

    def init_weights(self) -> None:
        super().init_weights()
        if self.init_cfg:
            log_licence(self.trunk)

    def checkpoint_advice(self, state: dict[str, Tensor]) -> str:
        return ADVICE if is_file_of_efficientnet_pytorch(state) else super().checkpoint_advice(state)

    def maps(self, x: Tensor) -> list[Tensor]:
        self._check_input(x)
        self.trunk.set_grad_checkpointing(self.with_cp and self.training and torch.is_grad_enabled())
        fitted = self._fit(x.contiguous(memory_format=torch.channels_last))
        padded, out = self._pads_always(), []
        for m, stride in zip(self._run(fitted), self.out_strides, strict=True):
            sides = [
                side if not padded and pixels == all_pixels else ceil_div(pixels, stride)
                for side, pixels, all_pixels in zip(m.shape[2:], x.shape[2:], fitted.shape[2:], strict=True)
            ]
            out.append(crop(m, *sides))
        return out

    def _run(self, x: Tensor) -> list[Tensor]:
        """timm's features.

        Raises:
            ValueError: The network does not take images of this size.
        """
        try:
            return self.trunk.forward_intermediates(x, indices=self.features, intermediates_only=True)
        except (AssertionError, RuntimeError) as error:
            multiple = self.trunk.feature_info[-1]['reduction']
            if isinstance(error, torch.OutOfMemoryError) or not (x.shape[2] % multiple or x.shape[3] % multiple):
                raise
            raise ValueError(
                f'{self.name} of timm does not take {x.shape[2]}x{x.shape[3]} pixels ({error}); pad images to '
                f'multiples of {multiple}, or choose another network'
            ) from error

    def head_features(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def stage_modules(self, index: int) -> list[nn.Module]:
        first, last = (0, 0) if index == -1 else (self.ends[index] + 1, self.ends[index + 1])
        return self._modules_within(self.trunk, '', range(first, last + 1))

    def _modules_within(self, module: nn.Module, prefix: str, layers: range) -> list[nn.Module]:
        """The largest modules all of whose parameters are of `layers`."""
        names = (prefix + name for name, _ in module.named_parameters())
        # CoaT shares modules between blocks: they count where they are registered first.
        own = {self.layers[name] in layers for name in names if name in self.layers}
        if own == {True}:
            return [module]
        parts = module.named_children() if True in own else ()
        return [inner for name, child in parts for inner in self._modules_within(child, f'{prefix}{name}.', layers)]

    def finish(self, out_norm: bool, norm: Callable[[int], nn.Module]) -> None:
        super().finish(out_norm, norm)
        for name, parameter in self.trunk.named_parameters():
            # Positions and prefix tokens of a plain network belong to no module but itself.
            if self.block_of(f'trunk.{name}')[0] < self.frozen_stages:
                parameter.requires_grad_(False)

    def block_of(self, name: str) -> tuple[int, int]:
        layer = self.layers[name.removeprefix('trunk.')]
        if layer == 0:
            return -1, 0
        stage = next(i for i, end in enumerate(self.ends[1:]) if layer <= end)
        return stage, layer - self.ends[stage] - 1

    def _check_recomputes(self) -> None:
        try:
            self.trunk.set_grad_checkpointing(True)
        except AssertionError as error:
            raise ValueError(f'with_cp=True: {self.name} of timm cannot recompute activations; leave it off') from error

    def fuse(self) -> 'TimmPyramid':
        """Merge the branches of re-parametrised networks (RepVGG, RepViT, FastViT, ...); others stay as they are."""
        from timm.utils import reparameterize_model

        reparameterize_model(self.trunk, inplace=True)
        return self

    def build_head(self, num_classes: int) -> nn.Module:
        """timm's network without its trunk.

        Raises:
            ValueError: Its classifier reads more than the last map.
        """
        import timm

        head = timm.create_model(self.name, num_classes=num_classes, **self.options)
        whole = head.state_dict().keys()
        last = head.feature_info[-1]['module'].partition('.')[0]
        children = [name for name, _ in head.named_children()]
        # Up to the last map's, if it is called as timm says it is.
        for i, name in enumerate(children[: children.index(last) + 1 if last in children else 0]):
            setattr(head, name, nn.Sequential() if i else _Layout(getattr(head, 'output_fmt', 'NCHW') == 'NHWC'))
        trunk, tail = self.trunk.state_dict().keys(), head.state_dict().keys()
        if trunk | tail != whole or {key.partition('.')[0] for key in trunk} & {key.partition('.')[0] for key in tail}:
            raise ValueError(
                f'the classifier of {self.name} reads more than its last map with out_indices={self.out_indices}; take '
                f"timm.create_model('{self.name}') for its logits"
            )
        return head
