"""Our classifiers in timm's registry, for its train.py, validate.py and benchmark.py: importing this registers them.

`timm.create_model('cvt_13', pretrained=True, num_classes=10)` then works, as does `cvt_13.in1k_384` for another file of
the index of published weights. Networks that are timm's own (`timm_*` here) are left to timm.
"""

import copy
import re
from functools import partial
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, register_model
from timm.models._builder import resolve_pretrained_cfg  # which timm's own entry points call
from torch import Tensor, nn

from ._meta import meta_device
from .backbones._classifier import Classifier
from .backbones.factory import create_backbone, find_backbone, list_backbones
from .backbones.pyramid import PyramidBackbone
from .checkpoints import load_pretrained
from .checkpoints.published import Published, list_published
from .checkpoints.sources import SCHEME
from .layers.layout import keep_gradient_layout

# Arguments of timm's scripts with the one value that these networks have.
ONLY: dict[str, Any] = dict(in_chans=3, drop_rate=0.0, global_pool='fast', cache_dir=None)
# Options that a published file implies, by backbone and the tag of the file.
FILE_OPTIONS: dict[tuple[str, str | None], dict[str, Any]] = {}


class TimmClassifier(Classifier):
    """A classifier with the attributes and methods that timm's scripts, optimizers and distillation use."""

    pretrained_cfg: dict[str, Any]

    def __init__(self, backbone: PyramidBackbone, num_classes: int) -> None:
        super().__init__(backbone, max(num_classes, 1))
        with meta_device():
            two, three = backbone.build_head(2), backbone.build_head(3)
        sized = [name for name, value in two.named_parameters() if value.shape != three.get_parameter(name).shape]
        # Layers of the head whose outputs are logits.
        self.classifier_names = list(dict.fromkeys(name.rpartition('.')[0] for name in sized))
        self.num_features = backbone.out_channels[-1]
        self.head_hidden_size = two.get_submodule(self.classifier_names[0]).weight.shape[1]
        self.num_classes = num_classes
        if num_classes == 0:
            self.reset_classifier(0)

    def forward_features(self, x: Tensor) -> Tensor:
        """What the head reads: a map, or tokens."""
        return self.backbone.head_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits, or with `pre_logits` what their layer reads."""
        out = (_without(self.head, self.classifier_names) if pre_logits else self.head)(x)
        # In training, DeiT with a distillation token gives the logits of each of its classifiers.
        return sum(out) / len(out) if isinstance(out, tuple) else out

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        layers = tuple(self.head.get_submodule(name) for name in self.classifier_names)
        return layers[0] if len(layers) == 1 else layers

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Another number of classes, 0 for none; what is before that layer stays."""
        _check(dict(global_pool=global_pool or 'fast'))
        head = self.backbone.build_head(max(num_classes, 1)).to(next(self.backbone.parameters()))
        keep_gradient_layout(head)
        for name in self.classifier_names:
            self.head.set_submodule(name, head.get_submodule(name) if num_classes else nn.Identity())
        self.num_classes = num_classes

    def no_weight_decay(self) -> set[str]:
        return {name for name, _ in self.named_parameters() if name.split('.')[-1] in self.backbone.no_weight_decay}

    def group_matcher(self, coarse: bool = False) -> Any:
        """Layer of a parameter by its name, or with `coarse` its stage; the head is the last."""
        last = self.backbone.num_stages, self.backbone.num_blocks + 1

        def position(name: str) -> int:
            part, _, rest = name.partition('.')
            return (last if part == 'head' else self.backbone.layer_position(rest))[0 if coarse else 1]

        return position

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.with_cp = enable


def _without(module: nn.Module, names: list[str]) -> nn.Module:
    """`module` with the same layers, but those of `names`."""
    module = copy.copy(module)
    module._modules = dict(module._modules)
    for name in names:
        first, _, rest = name.partition('.')
        module._modules[first] = _without(module._modules[first], [rest]) if rest else nn.Identity()
    return module


def _check(options: dict[str, Any]) -> dict[str, Any]:
    """`options` without those that these networks have in one way only.

    Raises:
        ValueError: One has another value.
    """
    for name, only in ONLY.items():
        if options.get(name, only) != only:
            raise ValueError(f'{name}={options[name]!r}: classifiers of hybrid_backbones have {only!r} only')
    return {name: value for name, value in options.items() if name not in ONLY}


def _create(
    name: str,
    pretrained: bool = False,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    num_classes: int | None = None,
    **options: Any,
) -> TimmClassifier:
    cfg = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay).to_dict()
    implied = find_backbone(name)[0].classifier_options | FILE_OPTIONS.get((name, cfg.get('tag')), {})
    backbone = create_backbone(name, **implied | _check(options))
    model = TimmClassifier(backbone, max(cfg['num_classes'], 0) if num_classes is None else num_classes)
    model.pretrained_cfg = model.default_cfg = cfg
    if pretrained:
        if model.num_classes != cfg['num_classes'] or not model.num_classes:
            model.dense_only_prefixes = tuple(f'{layer}.' for layer in model.classifier_names)
            model.checkpoint_ignores = tuple(map(re.escape, model.dense_only_prefixes))
        load_pretrained(model, cfg.get('file', SCHEME + name))
    return model


def _published_cfg(row: Published) -> PretrainedCfg:
    size = row.size or 224
    statistics = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)) if row.symmetric_images else {}
    return PretrainedCfg(
        file=SCHEME + row.name,
        num_classes=row.classes or 0,  # not published: the file is read without its classifier
        input_size=(3, size, size),
        crop_pct=0.875 if size == 224 else 1.0,  # customary; the index does not have it
        license=row.licence.lower(),
        origin_url=row.source,
        **statistics,
    )


def _register() -> None:
    names = [name for name in list_backbones() if not name.startswith('timm_')]
    cfgs = {}
    for row in list_published():
        if row.backbone in names:
            tag = row.name.removeprefix(f'{row.backbone}_')
            cfgs[f'{row.backbone}.{tag}'] = _published_cfg(row)
            FILE_OPTIONS[row.backbone, tag] = row.options
    without_files = {name: PretrainedCfg() for name in names if not any(key.startswith(f'{name}.') for key in cfgs)}
    globals()['default_cfgs'] = generate_default_cfgs(cfgs | without_files)  # where timm looks for it
    for name in names:
        create = partial(_create, name)
        create.__name__, create.__module__ = name, __name__  # by which timm registers it
        globals()[name] = register_model(create)


_register()
