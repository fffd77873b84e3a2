"""The parts of a detector or segmentor that read its backbone's maps, and how they are rewired to another's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from ..engine.config import read_config
from ..engine.packaged_configs import packaged_file
from .feature_maps import PYRAMID, Maps

# Keys of models in which none of our backbones works, with what they are.
FOREIGN = {
    'language_model': 'the text encoder',
    'text_encoder': 'the text encoder',
    'voxel_encoder': 'an encoder of 3-D points',
    'pts_voxel_encoder': 'an encoder of 3-D points',
    'img_backbone': 'the image branch of a 3-D detector',
}
# Parts that need more of a backbone than maps with channels and strides.
TIED = {
    'ResLayer': "it is a stage of the old backbone's own network",
    'SSDNeck': "it continues the old backbone's layers, of fixed channels",
    'RFP': "it feeds its maps back into the old backbone's own layers",
    'DPTHead': "it reads the old backbone's class tokens",
    'PIDHead': "it reads the branches of the old backbone's own network",
    'DDRHead': "it reads the branches of the old backbone's own network",
    'VPDDepthHead': 'it reads the attention of a diffusion model',
    'CornerHead': "it reads the stacks of the old backbone's own network",
    'CentripetalHead': "it reads the stacks of the old backbone's own network",
}
# Necks that hand on all but the last of the maps that they read, for heads.
HANDING_ON = ('JPU',)
# Position, for what reads such a neck, of a map that the neck itself makes.
OWN = -1
# FPNs that also read the sizes of maps below their first level.
READING_SIZES = ('NASFCOS_FPN',)
# Necks that make a pyramid of a plain network's maps.
PLAIN_NECKS = ('Feature2Pyramid', 'MultiLevelNeck')


@dataclass
class Reader:
    """A part of a model that reads maps of the backbone.

    Attributes:
        part: Its key.
        config: Its config.
        positions: Of the maps that it reads among those of the old backbone, in its own order; `OWN` for a neck's.
        key: Where its config says their channels.
    """

    part: str
    config: dict[str, Any]
    positions: tuple[int, ...]
    key: str = 'in_channels'

    def __str__(self) -> str:
        return f'{self.part} ({self.config.get("type")})'


def read_teacher(model: dict[str, Any]) -> list[str]:
    """Put the model of a teacher's config file into `model`: mmdet's name files of a checkout of its repository.

    Raises:
        ValueError: The file is neither here nor in the installed package.
    """
    path = model.get('teacher_config')
    if not isinstance(path, str):
        return []
    packaged = packaged_file(f'mmdet::{path.removeprefix("configs/")}')
    file = next((file for file in (Path(path), packaged) if file.is_file()), None)
    if file is None:
        raise ValueError(f'model.teacher_config names {path}, which is neither here nor in the installed package')
    model['teacher_config'] = dict(model=read_config(file, import_custom_modules=False).model)
    return [f'model.teacher_config: the model of {file}, in place of the name of the file']


def preprocessors(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The data preprocessors that normalise the images of a model, a wrapper or the detector in it."""
    found = []
    for key in ('data_preprocessor', 'detector', 'segmentor', 'module'):
        part = model.get(key)
        if not isinstance(part, dict):
            continue
        if key == 'data_preprocessor' and 'data_preprocessor' not in part:
            found.append(part)
        else:
            found += preprocessors(part)
    return found


def check_parts(model: dict[str, Any], scope: str | None) -> None:
    """Refuse models in which a backbone cannot be swapped.

    Raises:
        ValueError: Which part forbids it.
    """
    if scope not in (None, 'mmdet', 'mmseg'):
        kind = 'a 3-D config' if scope == 'mmdet3d' else 'a config'
        raise ValueError(f'default_scope={scope!r}: {kind}; expected a detector of mmdet or a segmentor of mmseg')
    for key, what in FOREIGN.items():
        if model.get(key):
            raise ValueError(
                f'model.{key} ({model[key].get("type")}) is {what}, which learned together with its backbone'
            )
    if not isinstance(model.get('backbone'), dict):
        raise ValueError(f'model ({model.get("type")}) has no part called backbone, but {", ".join(sorted(model))}')
    for path, part in _parts(model, 'model'):
        if part.get('type') in TIED:
            raise ValueError(f'{path} ({part["type"]}) reads internals of the backbone: {TIED[part["type"]]}')


def _parts(node: Any, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from _parts(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _parts(value, f'{path}[{i}]')


def _listed(model: dict[str, Any], *keys: str) -> Iterator[tuple[str, dict]]:
    """Parts under `keys`, which are one dict or several."""
    for key in keys:
        value = model.get(key)
        if isinstance(value, dict):
            yield f'model.{key}', value
        else:
            yield from ((f'model.{key}[{i}]', part) for i, part in enumerate(value or []))


def part_names(model: dict[str, Any], *keys: str) -> str:
    return ', '.join(f'{part} ({config.get("type")})' for part, config in _listed(model, *keys))


def assumed_maps(model: dict[str, Any]) -> Maps:
    """Maps of a backbone that cannot be built here, from the channels that are read of it.

    Raises:
        ValueError: No part tells them all.
    """
    for _, part in _listed(model, 'neck', 'decode_head', 'panoptic_head'):
        channels = part.get('in_channels')
        if isinstance(channels, (list, tuple)) and len(channels) <= len(PYRAMID):
            return Maps(tuple(channels), PYRAMID[-len(channels) :])
    raise ValueError('no part of the model lists the channels of its maps')


def readers(model: dict[str, Any], old: Maps, segmentor: bool) -> list[Reader]:
    """What reads the maps `old` of the model's backbone: its first neck, or its heads where there is none.

    Raises:
        ValueError: A part that does not say which maps it reads.
    """
    neck = next(_listed(model, 'neck'), None)
    if neck is not None:
        reader = _neck_reader(*neck, old)
        return [reader, *(_readers_behind(model, reader) if neck[1]['type'] in HANDING_ON else ())]
    if segmentor:
        return [_segmentor_reader(*head, old) for head in _listed(model, 'decode_head', 'auxiliary_head')]
    heads = [item for item in model.items() if item[0].endswith('_head') and isinstance(item[1], dict)]
    found = [
        Reader(f'model.{key}', head, tuple(range(len(old))))
        for key, head in heads
        if _equal(head.get('in_channels'), old.channels)
    ]
    if len(old) == 1:
        found += _readers_of_one_map(model, old.channels[0])
    if not found:
        parts = ', '.join(f'model.{key} ({head.get("type")})' for key, head in heads)
        raise ValueError(f'there is no neck, and none of {parts} lists the channels of the maps, {old.channels}')
    return found


def _readers_of_one_map(model: dict[str, Any], channels: int) -> Iterator[Reader]:
    """Heads on the only map, such as a dilated C5, with the RoI extractors that say its channels again."""
    for part, config in _parts({key: model.get(key) for key in ('rpn_head', 'roi_head', 'bbox_head')}, 'model'):
        key = 'out_channels' if 'featmap_strides' in config else 'in_channels'
        if config.get(key) == channels:
            yield Reader(part, config, (0,), key)


def _readers_behind(model: dict[str, Any], neck: Reader) -> Iterator[Reader]:
    """Heads that read maps which the neck hands on."""
    for part, head in _listed(model, 'decode_head', 'auxiliary_head'):
        index = head.get('in_index', -1)
        handed_on = dict(enumerate(neck.positions[:-1]))
        positions = tuple(handed_on.get(i, OWN) for i in (index if isinstance(index, (list, tuple)) else [index]))
        if any(position != OWN for position in positions):
            yield Reader(part, head, positions)


def _equal(given: Any, channels: tuple[int, ...]) -> bool:
    return isinstance(given, (list, tuple)) and tuple(given) == channels


def _neck_reader(part: str, neck: dict[str, Any], old: Maps) -> Reader:
    given = neck.get('in_channels')
    if given == old.channels[-1]:
        return Reader(part, neck, (len(old) - 1,))
    if _equal(given, old.channels):
        first, last = (neck.get('start_level', 0), neck.get('end_level', -1)) if _has_levels(neck) else (0, -1)
        return Reader(part, neck, tuple(range(first, len(old) if last == -1 else last + 1)))
    if _equal(given, old.channels[::-1]):  # YOLOv3, from coarse to fine
        return Reader(part, neck, tuple(reversed(range(len(old)))))
    raise ValueError(
        f'{part} ({neck["type"]}) has in_channels={given} and the backbone maps of {old.channels} channels: '
        'which it reads cannot be told'
    )


def _has_levels(neck: dict[str, Any]) -> bool:
    """Whether the neck reads its levels from `start_level` to `end_level` alone."""
    return 'FPN' in neck.get('type', '') and neck['type'] not in READING_SIZES


def _segmentor_reader(part: str, head: dict[str, Any], old: Maps) -> Reader:
    head = head.get('kernel_generate_head', head)  # K-Net
    if 'in_channels' not in head:
        raise ValueError(f'{part} ({head.get("type")}) does not say by in_channels and in_index which maps it reads')
    index = head.get('in_index', list(range(len(old))) if isinstance(head['in_channels'], (list, tuple)) else -1)
    positions = [i % len(old) for i in (index if isinstance(index, (list, tuple)) else [index])]
    if 'c1_in_channels' in head:  # and the finest map
        positions.append(0)
    return Reader(part, head, tuple(positions))


def rewire(reader: Reader, place: dict[int, int], new: Maps) -> list[str]:
    """Point a part to the maps `new`, where the old map i is now number `place[i]`.

    Returns:
        What changed, in words.
    """
    config, before = reader.config, dict(reader.config)
    places = [OWN if i == OWN else place[i] for i in reader.positions]
    if 'c1_in_channels' in config:
        config['c1_in_channels'] = new.channels[places.pop()]
    given = config[reader.key]
    several = isinstance(given, (list, tuple))
    old = given if several else [given]
    channels = [old[n] if i == OWN else new.channels[i] for n, i in enumerate(places)]
    config[reader.key] = type(given)(channels) if several else channels[0]  # some necks take a list only, some a tuple
    if 'in_index' in config and OWN not in places:
        config['in_index'] = places if several or isinstance(config['in_index'], (list, tuple)) else places[0]
    for key in ('strides', 'feature_strides'):
        if several and len(config.get(key) or ()) == len(places):
            config[key] = [new.strides[i] for i in places]
    if _has_levels(config):  # maps outside these levels are no longer put out
        config.update({key: value for key, value in dict(start_level=0, end_level=-1).items() if key in config})
    changed = [f'{key}={config[key]}' for key in config if config[key] != before[key]]
    return [f'{reader}: {", ".join(changed)}'] if changed else []


def drop_pyramid_neck(model: dict[str, Any], segmentor: bool) -> list[str]:
    """Remove a segmentor's neck that makes a pyramid of a plain network's equal maps: ours put out a pyramid."""
    neck = next(_listed(model, 'neck'), (None, {}))[1]
    if not segmentor or neck.get('type') not in PLAIN_NECKS:
        return []
    model['neck'] = None
    return [f"model.neck: {neck['type']} removed, which made a pyramid of the old backbone's equal maps"]


def check_heads(model: BaseModel, maps: Sequence[Tensor]) -> None:
    """Compare the input channels of a built model's heads with the channels of `maps`.

    Raises:
        ValueError: They differ; which part.
    """
    channels = [m.shape[1] for m in maps]
    giver = type(getattr(model, 'neck', None) or model.backbone).__name__
    for name, child in model.named_children():
        for head in child if isinstance(child, nn.ModuleList) else [child]:
            head = getattr(head, 'mask_feature_head', head)  # which reads the maps for CondInst's mask head
            given = getattr(head, 'in_channels', None)
            expected = None if name == 'neck' or given is None else _expected(head, given, channels)
            if expected not in (None, given):
                raise ValueError(
                    f'model.{name} ({type(head).__name__}) takes {given} channels, of which {giver} gives {expected}'
                )


def _expected(head: nn.Module, given: int | Sequence[int], channels: list[int]) -> Any:
    """Channels that a head is given, in the form of its own `in_channels`; None where the levels are unknown."""
    index = getattr(head, 'in_index', None)
    if index is None:
        # Detectors' heads run on all levels alike.
        return channels[0] if isinstance(given, int) and len(set(channels)) == 1 else None
    chosen = [channels[i] for i in ([index] if isinstance(index, int) else index)]
    return sum(chosen) if isinstance(given, int) else list(chosen) if isinstance(given, list) else tuple(chosen)
