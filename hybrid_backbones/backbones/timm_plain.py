"""Plain ViTs of timm as pyramids: DeiT-III, DINOv2, DINOv3, EVA-02, BEiT, SigLIP 2, MAE, SAM, C-RADIO and others.

timm: PyTorch Image Models by Ross Wightman, https://github.com/huggingface/pytorch-image-models (1.0.31), Apache-2.0.
The network is timm's own, of its classes `VisionTransformer`, `Eva`, `Beit` and `VisionTransformerSAM`; its parameters
carry timm's names behind `trunk.`, and files of timm load as they are. timm is imported when the first network is
built. Licences of weights that are none of free software (MAE's, DINOv3's, C-RADIO's) are logged as they are loaded.

Deliberate differences from timm:

- Any image size: the image is padded with zeros at the right and bottom to whole patches, the grid is
  ceil(H / patch) x ceil(W / patch), and what is learned of positions is resized to it as timm resizes it for a network
  built for that size. BEiT's tables of offsets are resized in every forward pass, by the same interpolation, and its
  bias, as that of SAM's global blocks, is never a matrix of all pairs of tokens.
- Four levels from one grid (`pyramid`), windows for large images (`window_size`), an output norm per returned map.
- Maps of patches of other than 16 pixels (DINOv2 and EVA-02 have 14) are resampled linearly to a grid of stride 16,
  pixel by pixel in place, from which the pyramid makes strides 4, 8, 16 and 32. With `pyramid=None` they are returned
  as they are, of stride 14.
- The final norm and the classifier are left out of the trunk; `create_classifier` has them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.norm import LayerNorm2d
from ..layers.plain_pyramid import PlainPyramid
from ..registry import register_backbone
from ._plain import STRIDE, PlainBackbone, block_windows
from ._timm_network import (
    complete,
    convert_file,
    file_rules,
    image_statistics,
    log_licence,
    parse_name,
    without_decay,
    without_weights,
)

# Arguments of timm's that change what a grid is, or that this class does not pass on.
REFUSED = ('attn_drop_rate', 'patch_drop_rate', 'dynamic_img_size', 'dynamic_img_pad', 'strict_img_size')


class ResampledPyramid(PlainPyramid):
    """A pyramid from maps of any stride, which are resampled to stride 16 first.

    Args:
        stride: Of the maps, in pixels.
        Others: Those of :class:`PlainPyramid`.
    """

    def __init__(self, stride: int, kind: str, dim: int, levels: Sequence[int]) -> None:
        super().__init__(kind, dim, {}, levels)
        self.stride = stride

    def forward(self, maps: Sequence[Tensor], finer: Mapping[int, Tensor], size: tuple[int, int]) -> list[Tensor]:
        """Maps (N, C, H / stride, W / stride) of an image of `size`, to the levels wanted."""
        return super().forward([resample(x, self.stride, STRIDE, size) for x in maps], finer, size)


def resample(x: Tensor, stride: int, wanted: int, size: tuple[int, int]) -> Tensor:
    """Linear interpolation of a map at the centres of cells of another stride, which stay where they are in the image.

    Args:
        x: (N, C, ceil(H / stride), ceil(W / stride)).
        stride: Of the map, in pixels.
        wanted: Stride of the result.
        size: (H, W) of the image.

    Returns:
        (N, C, ceil(H / wanted), ceil(W / wanted)); beyond the outer centres, the outer values.
    """
    if stride == wanted:
        return x
    rows, columns = (
        _interpolation(cells, stride, (pixels + wanted - 1) // wanted, wanted, x)
        for cells, pixels in zip(x.shape[2:], size, strict=True)
    )
    return torch.einsum('yh,nchw,xw->ncyx', rows, x, columns)


def _interpolation(cells: int, stride: int, wanted_cells: int, wanted: int, like: Tensor) -> Tensor:
    """Weights (wanted_cells, cells), in the dtype and on the device of `like`."""
    centres = (torch.arange(wanted_cells, device=like.device) + 0.5) * (wanted / stride) - 0.5
    distances = centres.clamp(0, cells - 1)[:, None] - torch.arange(cells, device=like.device)
    return (1 - distances.abs()).clamp(min=0).to(like.dtype)


@register_backbone(
    timm_deit3_s=dict(arch='deit3_small_patch16_224.fb_in22k_ft_in1k'),
    timm_deit3_m=dict(arch='deit3_medium_patch16_224.fb_in22k_ft_in1k'),
    timm_deit3_b=dict(arch='deit3_base_patch16_224.fb_in22k_ft_in1k'),
    timm_deit3_l=dict(arch='deit3_large_patch16_224.fb_in22k_ft_in1k'),
    timm_dinov2_s=dict(arch='vit_small_patch14_dinov2.lvd142m'),
    timm_dinov2_b=dict(arch='vit_base_patch14_dinov2.lvd142m'),
    timm_dinov2_l=dict(arch='vit_large_patch14_dinov2.lvd142m'),
    timm_dinov2_reg_s=dict(arch='vit_small_patch14_reg4_dinov2.lvd142m'),
    timm_dinov2_reg_b=dict(arch='vit_base_patch14_reg4_dinov2.lvd142m'),
    timm_dinov2_reg_l=dict(arch='vit_large_patch14_reg4_dinov2.lvd142m'),
    timm_dinov3_s=dict(arch='vit_small_patch16_dinov3.lvd1689m'),
    timm_dinov3_s_plus=dict(arch='vit_small_plus_patch16_dinov3.lvd1689m'),
    timm_dinov3_b=dict(arch='vit_base_patch16_dinov3.lvd1689m'),
    timm_dinov3_l=dict(arch='vit_large_patch16_dinov3.lvd1689m'),
    timm_eva02_t=dict(arch='eva02_tiny_patch14_336.mim_in22k_ft_in1k'),
    timm_eva02_s=dict(arch='eva02_small_patch14_336.mim_in22k_ft_in1k'),
    timm_eva02_b=dict(arch='eva02_base_patch14_448.mim_in22k_ft_in22k_in1k'),
    timm_eva02_l=dict(arch='eva02_large_patch14_448.mim_m38m_ft_in22k_in1k'),
    timm_beit_b=dict(arch='beit_base_patch16_224.in22k_ft_in22k_in1k'),
    timm_beit_l=dict(arch='beit_large_patch16_224.in22k_ft_in22k_in1k'),
    timm_beitv2_b=dict(arch='beitv2_base_patch16_224.in1k_ft_in22k_in1k'),
    timm_beitv2_l=dict(arch='beitv2_large_patch16_224.in1k_ft_in22k_in1k'),
    timm_siglip2_b=dict(arch='vit_base_patch16_siglip_224.v2_webli'),
    timm_siglip2_l=dict(arch='vit_large_patch16_siglip_256.v2_webli'),
    timm_mae_b=dict(arch='vit_base_patch16_224.mae'),
    timm_mae_l=dict(arch='vit_large_patch16_224.mae'),
    timm_sam_b=dict(arch='samvit_base_patch16.sa1b'),
    timm_sam_l=dict(arch='samvit_large_patch16.sa1b'),
    timm_cradio_v3_b=dict(arch='vit_base_patch16_radio_v3.c_radio'),
    timm_cradio_v3_l=dict(arch='vit_large_patch16_radio_v3.c_radio'),
)
class TimmPlainPyramid(PlainBackbone):
    """A plain ViT of timm as a pyramid of strides 4, 8, 16, 32.

    Args:
        arch: timm's name of the network, with the tag of its weights where normalisation or licence depend on it
            (`'vit_base_patch16_224.mae'`), or a dict of `model_name` and arguments of its constructor, as
            `dict(model_name='vit_small_patch14_dinov2', img_size=224)`, at which learned positions are stored.
        pyramid, blocks, window_size: See :class:`PlainBackbone`; maps of single `blocks` have the stride of the
            patches. SAM has windows of its own and takes no others.

    The other options are those of :class:`PlainBackbone`, except `table_size`, which is `img_size` of `arch` here.

    Raises:
        ValueError: Unknown arch, one that is no plain ViT, or options that it does not know.
    """

    tiny_arch = 'test_vit'
    checkpoint_ignores: tuple[str, ...] = ()

    def __init__(
        self,
        arch: str | dict[str, Any] = 'vit_small_patch16_dinov3.lvd1689m',
        pyramid: str | None = 'simple',
        blocks: Sequence[int] | None = None,
        window_size: int | None = None,
        out_indices: Sequence[int] | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        out_norm: bool = True,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        import timm

        self.name, options = parse_name(arch)
        _check_options(options)
        network = without_weights(self.name, options)
        self.options = complete(network, self.name, options, drop_path_rate)
        _check_class(self.name, network)
        depth, dim = len(network.blocks), network.embed_dim
        super().__init__(depth, dim, pyramid, blocks, {}, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.patch = network.feature_info[0]['reduction']
        if pyramid is None:
            self.out_strides = (self.patch,) * len(self.out_indices)
        else:
            self.pyramid = ResampledPyramid(self.patch, pyramid, dim, self.out_indices)
        self.image_mean, self.image_std = image_statistics(network)
        # On the meta device; in a tuple, so that it is no part of this module.
        self.complete_network = (network,)
        self.trunk = timm.create_model(self.name, num_classes=0, **self.options)
        self._adapt_to_any_size(block_windows(depth, window_size))
        self.trunk.prune_intermediate_layers([self.num_blocks - 1], prune_norm=True, prune_head=True)
        self.checkpoint_renames, self.checkpoint_ignores = file_rules(network, self.trunk)
        self.finish(out_norm, LayerNorm2d)

    def _adapt_to_any_size(self, windows: Sequence[int | None]) -> None:
        from ._timm_attention import attend_on_grid

        embed = self.trunk.patch_embed
        embed.strict_img_size, embed.flatten, embed.output_fmt = False, False, type(embed.output_fmt)('NHWC')
        # Its check of the size instead writes it into a message, for which a compiler takes it as a constant.
        embed.dynamic_img_pad = True
        blocks = zip(self.trunk.blocks, windows, strict=True)
        self.size_arguments = [attend_on_grid(block, window) for block, window in blocks]

    # What the contract asks for.

    @property
    def no_weight_decay(self) -> tuple[str, ...]:
        """timm's own choice, by the last part of the names."""
        return without_decay(self.trunk)

    def embed(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Grid (N, H / patch, W / patch, C), rounded up."""
        self._check_input(x)
        return self.trunk.patch_embed(x), {}

    def tokens(self, grid: Tensor) -> Iterator[Tensor]:
        size = tuple(grid.shape[1:3])
        x, options = ENTRIES[_class_of(self.trunk)](self.trunk, grid)
        for block, own, argument in zip(self.trunk.blocks, options, self.size_arguments, strict=False):
            x = self.run_block(block, x, **own, **({argument: size} if argument else {}))
            yield x.flatten(1, 2) if x.ndim == 4 else x

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return convert_file(state, *self.complete_network)

    def init_weights(self) -> None:
        super().init_weights()
        if self.init_cfg:
            log_licence(self.trunk)

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == -1:
            return [child for name, child in self.trunk.named_children() if name != 'blocks']
        start = sum(self.depths[:index])
        return list(self.trunk.blocks[start : start + self.depths[index]])

    def block_of(self, name: str) -> tuple[int, int]:
        return super().block_of(name.removeprefix('trunk.'))

    def finish(self, out_norm: bool, norm: Callable[[int], nn.Module]) -> None:
        super().finish(out_norm, norm)
        if self.frozen_stages >= 0:
            # Positions and prefix tokens belong to no module but the trunk.
            for parameter in self.trunk.parameters(recurse=False):
                parameter.requires_grad_(False)

    def head_features(self, x: Tensor) -> Tensor:
        """Tokens of the last block, (N, T, C); of SAM, whose head reads a map, (N, C, H, W)."""
        grid, _ = self.embed(x)
        *_, tokens = self.tokens(grid)
        is_map = _class_of(self.trunk) == 'VisionTransformerSAM'
        return tokens.unflatten(1, grid.shape[1:3]).permute(0, 3, 1, 2) if is_map else tokens

    def build_head(self, num_classes: int) -> nn.Module:
        """timm's layers behind the last block."""
        import timm

        head = timm.create_model(self.name, num_classes=num_classes, **self.options)
        for name in {key.partition('.')[0] for key in self.trunk.state_dict()}:
            setattr(head, name, None)
        head.__class__ = type(f'{type(head).__name__}Head', (_BehindTrunk, type(head)), {})
        return head


class _BehindTrunk:
    """A network of timm without its trunk."""

    def forward(self, x: Tensor) -> Tensor:
        """What the trunk's `head_features` are, to logits."""
        return self.forward_head(self.neck(x) if hasattr(self, 'neck') else self.norm(x))


def _check_options(options: dict[str, Any]) -> None:
    refused = sorted(set(options) & set(REFUSED))
    if refused:
        raise ValueError(f'arch has {", ".join(refused)}, which TimmPlainPyramid does not pass to timm; leave it out')


def _class_of(network: nn.Module) -> str | None:
    return next((cls.__name__ for cls in type(network).__mro__ if cls.__name__ in ENTRIES), None)


def _check_class(name: str, network: nn.Module) -> None:
    if _class_of(network) is None or getattr(network, 'rel_pos_bias', None) is not None:
        raise ValueError(
            f'{name} of timm is a {type(network).__name__}, of which TimmPlainPyramid makes no pyramid; it takes '
            f'networks of the classes {", ".join(ENTRIES)}. Hierarchical networks are for TimmPyramid'
        )


# What the first block reads of a grid (N, H, W, C), and the arguments of every block.
Entry = tuple[Tensor, Sequence[dict[str, Any]]]


def _enter_vit(trunk: nn.Module, grid: Tensor) -> Entry:
    return trunk.norm_pre(trunk._pos_embed(grid)), [{}] * len(trunk.blocks)


def _enter_eva(trunk: nn.Module, grid: Tensor) -> Entry:
    x, rope = trunk._pos_embed(grid)
    # Learned frequencies are a block's own.
    ropes = rope if getattr(trunk, 'rope_mixed', False) else [rope] * len(trunk.blocks)
    return trunk.norm_pre(x), [dict(rope=each) for each in ropes]


def _enter_beit(trunk: nn.Module, grid: Tensor) -> Entry:
    from timm.layers import resample_abs_pos_embed

    x = torch.cat([trunk.cls_token.expand(grid.shape[0], -1, -1), grid.flatten(1, 2)], 1)
    if trunk.pos_embed is not None:
        x = x + resample_abs_pos_embed(trunk.pos_embed, grid.shape[1:3], trunk.patch_embed.grid_size)
    return trunk.pos_drop(x), [{}] * len(trunk.blocks)


def _enter_sam(trunk: nn.Module, grid: Tensor) -> Entry:
    from timm.layers import resample_abs_pos_embed_nhwc

    if trunk.pos_embed is not None:
        grid = grid + resample_abs_pos_embed_nhwc(trunk.pos_embed, grid.shape[1:3])
    return trunk.norm_pre(trunk.pos_drop(grid)), [{}] * len(trunk.blocks)


ENTRIES = {'VisionTransformer': _enter_vit, 'Eva': _enter_eva, 'Beit': _enter_beit, 'VisionTransformerSAM': _enter_sam}
