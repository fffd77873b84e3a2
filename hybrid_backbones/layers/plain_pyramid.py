"""Four levels, of strides 4, 8, 16 and 32, from a plain network's maps of stride 16."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .norm import LayerNorm2d
from .patch_embed import crop
from .sizes import ceil_div

KINDS = ('simple', 'multi_depth', 'stem')
STRIDES = (4, 8, 16, 32)


def level_channels(kind: str, dim: int, finer: Mapping[int, int]) -> tuple[int, ...]:
    """Channels of the four levels of a trunk of `dim` channels, whose stem has maps of `finer` channels by stride."""
    if kind == 'multi_depth':
        return (dim,) * 4
    stem = finer if kind == 'stem' else {}
    return stem.get(4, dim // 4), stem.get(8, dim // 2), dim, dim


class PlainPyramid(nn.Module):
    """Resizes maps of stride 16 by transposed convolutions and max-pooling, and cuts off what padding had added.

    - `'simple'`: every level from the last map, with a quarter and a half of its channels at strides 4 and 8, as
      ViTDet's simple feature pyramid (arXiv 2203.16527, section 3) up to its last two convolutions, whose part the
      neck of a detector takes.
    - `'multi_depth'`: level k from the map after k + 1 quarters of the blocks, each of the trunk's channels, as the
      detectors of XCiT (arXiv 2106.09681) and the segmentors of BEiT (arXiv 2106.08254) have it; LayerNorm where they
      have BatchNorm, whose statistics of two images are poor.
    - `'stem'`: as `'simple'`, with the convolutional stem's own maps where it has them.

    Args:
        kind: One of `KINDS`.
        dim: C of the trunk.
        finer: Channels of the stem's maps by stride.
        levels: Levels wanted, 0 to 3.
    """

    def __init__(self, kind: str, dim: int, finer: Mapping[int, int], levels: Sequence[int]) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.from_stem = {i for i in levels if kind == 'stem' and STRIDES[i] in finer}
        channels = level_channels(kind, dim, finer)
        hidden = dim if kind == 'multi_depth' else dim // 2
        resize = {
            0: lambda: nn.Sequential(
                _double(dim, hidden), LayerNorm2d(hidden), nn.GELU(), _double(hidden, channels[0])
            ),
            1: lambda: _double(dim, channels[1]),
            2: nn.Identity,
            3: lambda: nn.MaxPool2d(2, ceil_mode=True),
        }
        self.resize = nn.ModuleDict({str(i): resize[i]() for i in levels if i not in self.from_stem})

    def forward(self, maps: Sequence[Tensor], finer: Mapping[int, Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The levels wanted.

        Args:
            maps: For each of them, the map (N, C, H / 16, W / 16) to make it from.
            finer: The stem's maps (N, C', H / s, W / s) by stride s.
            size: (H, W) of the image.

        Returns:
            (N, C_i, H_i, W_i) each, sizes rounded up, channels_last in memory.
        """
        out = []
        for level, x in zip(self.levels, maps, strict=True):
            stride = STRIDES[level]
            x = finer[stride] if level in self.from_stem else self.resize[str(level)](x)
            out.append(crop(x, *(ceil_div(pixels, stride) for pixels in size)))
        return out


def _double(dim: int, out_dim: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(dim, out_dim, 2, stride=2)
