"""The layout of plain networks: one grid of stride 16 from stem to head, and a pyramid made of it behind the trunk."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.plain_pyramid import KINDS, STRIDES, PlainPyramid, level_channels
from ..layers.position import SizeCache, resize_positions, square_side
from ..layers.sizes import ceil_div
from ._published import shape_in
from ._table_size import NOT_SQUARE, log_resizing, parse_table_size
from .pyramid import PyramidBackbone

STRIDE = 16


def quarter_ends(depth: int) -> tuple[int, ...]:
    """Blocks up to the end of every quarter of a trunk, rounded up: 3, 6, 9 and 12 of 12."""
    return tuple(ceil_div(depth * quarter, 4) for quarter in range(1, 5))


def block_windows(depth: int, window_size: int | None) -> list[int | None]:
    """Window of every block: ViTDet's four global blocks end the quarters (arXiv 2203.16527, section 3)."""
    if window_size is not None and window_size < 1:
        raise ValueError(f'window_size={window_size}: expected None or a positive number of tokens')
    return [None if block + 1 in quarter_ends(depth) else window_size for block in range(depth)]


class PlainBackbone(PyramidBackbone):
    """Blocks on the tokens of a stride-16 grid, `blocks`, behind a stem.

    The stages of the contract are the quarters of the trunk; with `pyramid=None`, single blocks. A family sets
    `self.blocks` to `num_blocks` of them, each called with tokens (N, T, C) and the grid's size, and `self.patch_embed`
    and `self.pos_embed`, or what takes their place below; then it calls :meth:`finish`.

    Options of every plain backbone, beside those of :class:`PyramidBackbone`:

    - `pyramid`: Where the levels come from: `'simple'`, all from the last map, as ViTDet's detectors; `'multi_depth'`,
      each from its quarter of the blocks, as BEiT's segmentors; `'stem'`, finer levels from a convolutional stem that
      has them (ViT_C, CeiT); None, no levels but the maps of single blocks.
    - `blocks`, with `pyramid=None` only: Blocks from 0 whose maps are returned, ascending, all of stride 16; by default
      the last. `blocks=(2, 5, 8, 11)` ends the quarters of 12 blocks.
    - `table_size`, where positions are learned: Image size in pixels at which their table is stored: the side of square
      images, or (H, W), in multiples of 16. The table of a file of another size is resized, as it is for an image of
      another size. Of a file with as many tokens as this network, the same (H, W) is assumed.
    - `window_size`, where there is attention: None, or the side in tokens of the windows that it stays within, in all
      blocks but the last of each quarter, as ViTDet's (14 there): less work on large images, but another function than
      the one that was pretrained. A grid that one window covers stays whole.
    - `frozen_stages` counts quarters of the blocks; the stem includes positions and prefix tokens.

    Args:
        depth: Blocks of the architecture, at least four.
        dim: C.
        pyramid: Kind of :class:`hybrid_backbones.layers.plain_pyramid.PlainPyramid`, or None.
        blocks, out_indices: The options.
        finer: Channels of the maps that the stem has on its way, by stride.

    Raises:
        ValueError: Options outside the architecture.
    """

    no_weight_decay = ('pos_embed', 'cls_token', 'dist_token')
    dense_only_prefixes = ('out_norms.', 'pyramid.')
    head_lr_prefixes = ('out_norms.', 'pyramid.')
    classifier_options = dict(out_norm=False, pyramid=None)
    # Keys of published files that belong to the classification head, as a pattern.
    head_keys: str
    # How the position table is resized.
    align_corners = False

    def __init__(
        self,
        depth: int,
        dim: int,
        pyramid: str | None,
        blocks: Sequence[int] | None,
        finer: Mapping[int, int],
        out_indices: Sequence[int] | None,
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        init_cfg: dict[str, Any] | None,
    ) -> None:
        name = type(self).__name__
        kinds = (*(kind for kind in KINDS if finer or kind != 'stem'), None)
        if pyramid not in kinds:
            raise ValueError(f'pyramid={pyramid!r} of {name}: choose one of {", ".join(map(repr, kinds))}')
        if depth < 4:
            raise ValueError(f'{name} with {depth} blocks: expected at least 4, one per level')
        indices = self._stages_returned(depth, pyramid, blocks, out_indices)
        if pyramid is None:
            channels, strides, ends = (dim,) * depth, (STRIDE,) * depth, range(1, depth + 1)
        else:
            channels, strides, ends = level_channels(pyramid, dim, finer), STRIDES, quarter_ends(depth)
        num_stages = None if pyramid in (None, 'multi_depth') else 4
        super().__init__(channels, strides, indices, frozen_stages, norm_eval, with_cp, init_cfg, num_stages)
        self.depth = depth
        self.depths = tuple(b - a for a, b in pairwise((0, *ends)))[: self.num_stages]
        # Stages whose maps the outputs are made from.
        deepest = (self.num_stages - 1,) * len(self.out_indices)
        self.sources = self.out_indices if pyramid in (None, 'multi_depth') else deepest
        self.pyramid = None if pyramid is None else PlainPyramid(pyramid, dim, finer, self.out_indices)
        self.position_cache = SizeCache()

    @classmethod
    def _stages_returned(
        cls, depth: int, pyramid: str | None, blocks: Sequence[int] | None, out_indices: Sequence[int] | None
    ) -> Sequence[int]:
        """Levels, or with `pyramid=None` blocks.

        Raises:
            ValueError: Levels without a pyramid, blocks with one, or blocks outside the architecture.
        """
        if pyramid is not None:
            if blocks is not None:
                raise ValueError(
                    f'blocks={tuple(blocks)} of {cls.__name__} with pyramid={pyramid!r}: maps of single blocks are for '
                    'pyramid=None; out_indices chooses levels'
                )
            return range(4) if out_indices is None else out_indices
        if out_indices is not None:
            raise ValueError(
                f'out_indices={tuple(out_indices)} of {cls.__name__} with pyramid=None: there are no levels; choose '
                f'maps of single blocks, as blocks=({depth // 2}, {depth - 1})'
            )
        return cls.check_ascending('blocks', (depth - 1,) if blocks is None else blocks, depth)

    @property
    def output_option(self) -> str:
        return 'blocks' if self.pyramid is None else 'out_indices'

    # What a family defines.

    @property
    def stem(self) -> nn.Module:
        """(N, 3, H, W) to the grid (N, H / 16, W / 16, C), rounded up, and finer maps (N, C', H / s, W / s) by s."""
        return self.patch_embed

    @property
    def prefix_tokens(self) -> tuple[nn.Parameter, ...]:
        """Those in front of the grid's from the first block on, each (1, 1, C) and with a place in `pos_embed`."""
        return ()

    def first_tokens(self, grid: Tensor) -> Tensor:
        """(N, H, W, C) to what the first block reads, (N, T, C), in memory that it may overwrite."""
        front = [expand_token(token, grid) for token in self.prefix_tokens]
        return torch.cat([*front, grid.flatten(1, 2)], 1) + self.positions(tuple(grid.shape[1:3])).to(grid.dtype)

    # What all plain networks inherit.

    @property
    def min_size(self) -> int:
        return 1  # everything is rounded up

    def positions(self, size: tuple[int, int]) -> Tensor:
        """`pos_embed` on a grid of `size`, (1, T, C)."""
        return self.position_cache(self.pos_embed, size, lambda: self._resized(self.pos_embed, self.table_grid, size))

    def _resized(self, table: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        return resize_positions(table, grid, size, len(self.prefix_tokens), self.align_corners)

    def add_positions(self, table_size: int | Sequence[int], dim: int) -> None:
        """Make `pos_embed`, an embedding per token (1, T, C), behind the prefix tokens.

        Raises:
            ValueError: `table_size` is no size in multiples of 16 pixels.
        """
        height, width = parse_table_size(type(self).__name__, table_size, STRIDE)
        self.table_grid = height // STRIDE, width // STRIDE
        self.pos_embed = small_normal(1, len(self.prefix_tokens) + math.prod(self.table_grid), dim)

    def run(self, index: int, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Block `index` on tokens (N, T, C)."""
        return self.run_block(self.blocks[index], x, size=size)

    def tokens(self, grid: Tensor) -> Iterator[Tensor]:
        """Tokens (N, T, C) after every block; in inference, the next one overwrites them."""
        x = self.first_tokens(grid)
        for index in range(len(self.blocks)):
            x = self.run(index, x, tuple(grid.shape[1:3]))
            yield x

    def embed(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Grid and finer maps of the stem."""
        self._check_input(x)
        return self.stem(x.contiguous(memory_format=torch.channels_last))

    def maps(self, x: Tensor) -> list[Tensor]:
        size = tuple(x.shape[2:])
        grid, finer = self.embed(x)
        stage_ending = dict(zip(accumulate(self.depths), range(self.num_stages), strict=True))
        kept = {}
        for blocks, tokens in enumerate(self.tokens(grid), 1):
            stage = stage_ending.get(blocks)
            if stage in self.sources:
                kept[stage] = _as_map(tokens, grid.shape[1:3])
        maps = [kept[source] for source in self.sources]
        return maps if self.pyramid is None else self.pyramid(maps, finer, size)

    def head_features(self, x: Tensor) -> Tensor:
        """Tokens of the last block, (N, T, C)."""
        *_, last = self.tokens(self.embed(x)[0])
        return last

    def convert_checkpoint(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A position table that was learned on another square grid is resized to that of this network's."""
        given, own = state.get('pos_embed'), getattr(self, 'pos_embed', None)
        if given is None or own is None or given.shape == own.shape or given.shape[2:] != own.shape[2:]:
            return state
        side = square_side(given.shape[1] - len(self.prefix_tokens))
        if side is None:
            return state  # see checkpoint_advice
        log_resizing(type(self).__name__, (STRIDE * side,) * 2, tuple(STRIDE * side for side in self.table_grid))
        return {**state, 'pos_embed': self._resized(given, (side, side), self.table_grid)}

    def checkpoint_advice(self, state: dict[str, Tensor]) -> str:
        given, own = state.get('pos_embed'), getattr(self, 'pos_embed', None)
        if given is None or own is None or given.shape[2:] != own.shape[2:] or given.shape == own.shape:
            return super().checkpoint_advice(state)
        names = {*self.no_weight_decay}
        same_tokens = names & state.keys() == names & self.state_dict().keys()
        return NOT_SQUARE if same_tokens else super().checkpoint_advice(state)

    def finish(self, out_norm: bool, norm: Callable[[int], nn.Module]) -> None:
        super().finish(out_norm, norm)
        if self.frozen_stages >= 0:
            # The position table and prefix tokens, which belong to no module but the trunk, are of the stem.
            for parameter in self.parameters(recurse=False):
                parameter.requires_grad_(False)

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'blocks\.{i}\.' for i in range(self.num_blocks, self.depth))
        return (self.head_keys, *unbuilt)

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == -1:
            return [self.stem]
        start = sum(self.depths[:index])
        return list(self.blocks[start : start + self.depths[index]])

    def block_of(self, name: str) -> tuple[int, int]:
        if not name.startswith('blocks.'):
            return -1, 0
        block = int(name.split('.')[1])
        stage = next(s for s, end in enumerate(accumulate(self.depths)) if block < end)
        return stage, block - sum(self.depths[:stage])


def expand_token(token: Tensor, like: Tensor) -> Tensor:
    """A prefix token (1, 1, C) for every image of a batch, in the dtype of `like`, (N, 1, C)."""
    # Without the axes of length one, whose strides in the gradient DistributedDataParallel would compare.
    return token.flatten().to(like.dtype).expand(like.shape[0], 1, -1)  # len() would fix it in a compiled graph


def _as_map(tokens: Tensor, size: Sequence[int]) -> Tensor:
    """Those of a map, as one of its own (N, C, H, W), channels_last."""
    grid = tokens[:, tokens.shape[1] - size[0] * size[1] :].clone(memory_format=torch.contiguous_format)
    return grid.unflatten(1, tuple(size)).permute(0, 3, 1, 2)


def implied_table_size(state: Mapping[str, Tensor], prefix_tokens: int) -> dict[str, Any]:
    """`table_size` of a file with a square grid: of timm's table (1, T, C) or ClassyVision's (T, 1, C)."""
    tokens = math.prod(shape_in(state, r'^(encoder\.)?pos_embed(ding)?$')[:2])
    side = square_side(tokens - prefix_tokens)
    return dict(table_size=STRIDE * side) if side not in (None, 14) else {}


def small_normal(*shape: int) -> nn.Parameter:
    """A parameter as Transformers' embeddings start."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=0.02))


def init_linears(network: nn.Module) -> None:
    """DeiT's initialisation, which all plain Transformers here share."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
