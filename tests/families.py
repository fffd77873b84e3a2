"""The families of backbones, as registered: a family added tomorrow gets its marker and every test over the registry.

`pytest -m FAMILY` imports the test files of that name and those that import this module, and no others.
"""

from typing import Any

from hybrid_backbones import list_backbones
from hybrid_backbones.registry import VARIANTS


def family_of(name: str) -> str:
    """The file in `hybrid_backbones/backbones` that a variant comes from: `convit` of `convit_t_plus`."""
    return VARIANTS[name][0].__module__.rpartition('.')[2]


NAMES = list_backbones()
FAMILIES = sorted({family_of(name) for name in NAMES})
# One variant of every class, the first that its family registers.
ONE_OF_EACH = list({cls: name for name, (cls, _) in reversed(VARIANTS.items())}.values())[::-1]
# Variants whose mechanisms the tiny network of their class does not have.
OTHER_MECHANISMS = ['timm_coatnet_0_rw', 'timm_lamhalobotnet50ts']


def tiny_arch(name: str) -> str | dict[str, Any] | None:
    """A small network with every kind of layer of the variant; None where it is its own."""
    cls, _ = VARIANTS[name]
    if name == 'timm_coatnet_0_rw':
        return 'test_coatnet'
    return small_lamhalobotnet() if name == 'timm_lamhalobotnet50ts' else cls.tiny_arch


def small_lamhalobotnet() -> dict[str, Any]:
    """A stage of convolution, and one each of timm's attention of LambdaNet, HaloNet and BoTNet."""
    from timm.models.byobnet import ByoBlockCfg

    def stage(width: int, layer: str, **options: Any) -> ByoBlockCfg:
        return ByoBlockCfg('self_attn', 1, width, 2, 0, 0.25, self_attn_layer=layer, self_attn_kwargs=options)

    blocks = (
        ByoBlockCfg('bottle', 1, 32, 1, 0, 0.25),
        stage(64, 'lambda', r=3),
        stage(128, 'halo', block_size=4, halo_size=1),
        stage(128, 'bottleneck'),
    )
    return dict(model_name='lamhalobotnet50ts_256', img_size=64, stem_chs=16, blocks=blocks)
