"""The network to visualize: by name, or the backbone of a config, with weights of any file that training takes."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from ..backbones import PyramidBackbone
from ..backbones.factory import create_backbone, find_backbone
from ..checkpoints import load_pretrained
from ..checkpoints.reading import read_state_dict
from ..engine.config import read_config
from ..engine.model_checks import check_state_dict


@dataclass
class Network:
    """A backbone in eval mode, without gradients of its parameters, and how its images are normalised."""

    title: str
    backbone: nn.Module
    mean: tuple[float, ...] = PyramidBackbone.image_mean
    std: tuple[float, ...] = PyramidBackbone.image_std
    bgr: bool = False

    def input_of(self, image: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 RGB to (1, 3, H, W)."""
        x = torch.from_numpy(np.ascontiguousarray(image[..., ::-1] if self.bgr else image)).float()
        return ((x - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1)[None]


def load_network(
    name: str, checkpoint: str | Path | None = None, options: dict[str, Any] | None = None, title: str | None = None
) -> Network:
    """Build a network to visualize.

    Args:
        name: One of :func:`hybrid_backbones.list_backbones`, or a config file, whose backbone and normalisation of
            images are taken.
        checkpoint: Weights: a published file, or a checkpoint of a detector or segmentor with this backbone; None for
            those that the network starts training with.
        options: Arguments of the backbone's constructor, over its own.
        title: Name in pictures; `name` by default.

    Raises:
        ValueError: Unknown name or option.
        FileNotFoundError: No such config.
        CheckpointError: The checkpoint is damaged or of another architecture.
    """
    # A fixed seed, so that untrained networks are the same in every picture; the global stream is left as it is.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name.endswith('.py'):
            backbone, normalisation = _of_config(Path(name), checkpoint, options or {})
        else:
            backbone = _by_name(name, checkpoint, options or {})
            normalisation = dict(mean=backbone.image_mean, std=backbone.image_std)
    backbone.eval().requires_grad_(False)
    return Network(title or Path(name).stem, backbone, **normalisation)


def class_of(name: str) -> type[nn.Module]:
    """Class of the network `name`, before it is built.

    Raises:
        ValueError: Unknown name.
        FileNotFoundError: No such config.
    """
    if name.endswith('.py'):
        cfg = _read_config(Path(name))
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
            return MODELS.get(cfg.model.backbone.type)
    return find_backbone(name)[0]


def takes(name: str, option: str) -> bool:
    """Whether the constructor of the network `name` has such an option."""
    return option in inspect.signature(class_of(name)).parameters


def _by_name(name: str, checkpoint: str | Path | None, options: dict[str, Any]) -> nn.Module:
    class_of(name)
    _check_options(name, options)
    return create_backbone(name, checkpoint, **options)


def _of_config(path: Path, checkpoint: str | Path | None, options: dict[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    cfg = _read_config(path)
    _check_options(str(path), options)
    own = dict(cfg.model.backbone, **options)
    if checkpoint is not None:
        own.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        backbone = MODELS.build(own)
    if checkpoint is None:
        backbone.init_weights()
    elif isinstance(backbone, PyramidBackbone):
        load_pretrained(backbone, checkpoint)
    else:
        state, _ = read_state_dict(checkpoint)
        check_state_dict(backbone, state, str(checkpoint))
        backbone.load_state_dict(state)
    images = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    if 'mean' not in images:
        return backbone, {}
    normalisation = dict(mean=tuple(images.mean), std=tuple(images.std), bgr=not images.get('bgr_to_rgb', False))
    return backbone, normalisation


def _read_config(path: Path) -> Config:
    cfg = read_config(path)
    if 'backbone' not in (cfg.get('model') or {}):
        raise ValueError(f'{path} has no model.backbone to look into')
    return cfg


def _check_options(name: str, options: dict[str, Any]) -> None:
    unknown = [option for option in options if not takes(name, option)]
    if unknown:
        cls = class_of(name)
        known = ', '.join(inspect.signature(cls).parameters)
        raise ValueError(f'{cls.__name__} has no option {", ".join(unknown)}; it has {known}')
