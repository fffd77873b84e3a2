"""A trunk with its authors' classification head, so that a published file can be checked by its logits."""

from typing import Any

from torch import Tensor, nn

from ..layers.layout import keep_gradient_layout
from .pyramid import PyramidBackbone


class Classifier(nn.Module):
    """Logits of an image batch, (N, 3, H, W) to (N, num_classes).

    Its state_dict has trunk and head side by side under the authors' names, as their files have.

    Args:
        backbone: Built for a classifier, see `PyramidBackbone.classifier_options`.
        num_classes: Classes of the head.
    """

    # As of a backbone, see there; a classifier uses the whole file.
    dense_only_prefixes: tuple[str, ...] = ()
    checkpoint_ignores: tuple[str, ...] = ()

    def __init__(self, backbone: PyramidBackbone, num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = backbone.build_head(num_classes)
        self.checkpoint_layouts = backbone.checkpoint_layouts
        keep_gradient_layout(self.head)
        self.checkpoint_renames = backbone.checkpoint_renames
        self.convert_checkpoint = backbone.convert_checkpoint
        self.checkpoint_advice = backbone.checkpoint_advice
        self.register_state_dict_post_hook(_merge_keys)
        self.register_load_state_dict_pre_hook(_split_keys)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone.head_features(x))


def _merge_keys(classifier: Classifier, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Keys of a saved state as the authors': without `backbone.` and `head.` in front."""
    for key in [key for key in state if key.startswith(prefix)]:
        _, _, name = key.removeprefix(prefix).partition('.')
        state[prefix + name] = state.pop(key)


def _split_keys(classifier: Classifier, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """The authors' keys as those of the two modules, before loading."""
    heads = {name.split('.')[0] for name in classifier.head.state_dict()}
    for key in [key for key in state if key.startswith(prefix)]:
        name = key.removeprefix(prefix)
        part = 'head' if name.split('.')[0] in heads else 'backbone'
        state[f'{prefix}{part}.{name}'] = state.pop(key)
