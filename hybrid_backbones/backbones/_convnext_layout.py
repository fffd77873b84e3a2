"""The layout of ConvNeXt (arXiv 2201.03545) that later convolutional families took over, parameter names included."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..layers.drop_path import linear_rates
from ..layers.norm import LayerNorm2d
from .pyramid import PyramidBackbone


def init_layers(network: nn.Module) -> None:
    """The authors' initialisation of convolutions and linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Head(nn.Module):
    """ConvNeXt's classification head, (N, C, H, W) to logits."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x.mean((2, 3))))


class ConvNeXtLayout(PyramidBackbone):
    """Stages of blocks on (N, H, W, C), `stages`, each with a layer in front that halves the map, `downsample_layers`.

    A family calls :meth:`build_trunk` after this constructor, then :meth:`finish`.
    """

    # Keys of published files that belong to the classification head, as a pattern.
    head_keys: str

    def build_trunk(
        self,
        stem: nn.Module,
        depths: Sequence[int],
        dims: Sequence[int],
        drop_path_rate: float,
        make_block: Callable[[int, float], nn.Module],
    ) -> None:
        """Build the stages that are returned, with the authors' initialisation.

        Args:
            stem: (N, 3, H, W) to (N, dims[0], H / 4, W / 4).
            depths: Blocks of every stage of the architecture.
            dims: Channels of every stage.
            drop_path_rate: Stochastic depth of the last block; grows linearly from 0 over all blocks.
            make_block: Block of a stage with a rate of stochastic depth.
        """
        self.depths = tuple(depths[: self.num_stages])
        self.downsample_layers = nn.ModuleList([stem])
        for i in range(1, self.num_stages):
            halve = nn.Conv2d(dims[i - 1], dims[i], 2, stride=2)
            self.downsample_layers.append(nn.Sequential(LayerNorm2d(dims[i - 1]), halve))
        rates = linear_rates(drop_path_rate, sum(depths))
        self.stages = nn.ModuleList(
            nn.Sequential(*(make_block(i, next(rates)) for _ in range(depth))) for i, depth in enumerate(self.depths)
        )
        init_layers(self)

    @property
    def checkpoint_ignores(self) -> tuple[str, ...]:
        unbuilt = (rf'(downsample_layers|stages)\.{i}\.' for i in range(self.num_stages, 4))
        return (self.head_keys, *unbuilt)

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        x = self.downsample_layers[index](x).permute(0, 2, 3, 1).contiguous()
        for block in self.stages[index]:
            x = self.run_block(block, x)
        return x.permute(0, 3, 1, 2)

    def fuse(self) -> 'ConvNeXtLayout':
        for stage in self.stages:
            for block in stage:
                block.fuse()
        return self

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == -1:
            return [self.downsample_layers[0]]
        return [self.stages[index], *([self.downsample_layers[index]] if index else [])]

    def block_of(self, name: str) -> tuple[int, int]:
        kind, stage, block, *_ = name.split('.')
        if kind == 'downsample_layers':
            return (int(stage), 0) if stage != '0' else (-1, 0)
        return int(stage), int(block)
