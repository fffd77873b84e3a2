"""What a sweep measures: a YAML file, validated as a whole before anything runs.

`hybrid-backbones transfer schema spec` prints its JSON schema.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, ValidationError

from ...backbones.factory import list_backbones
from ...swap import build_stages
from ..rows import describe_count
from ..validation import Size, StrictModel, describe_errors
from .inputs import find_checkpoint, load_framework_config

T = TypeVar('T')


class SpecError(ValueError):
    """A spec that cannot be run; every problem that was found."""


def _check_unique(values: list[T]) -> list[T]:
    if len(values) != len(set(values)):
        raise ValueError(f'values must differ, got {values}')
    return values


def _square(size: Any) -> Any:
    return [size, size] if isinstance(size, int) else size


def _named(backbone: Any) -> Any:
    return {'name': backbone} if isinstance(backbone, str) else backbone


Unique = Annotated[list[T], Field(min_length=1), AfterValidator(_check_unique)]
Seeds = Unique[int]
Frozen = Annotated[Unique[bool], Field(description='whether the whole backbone is frozen or fine-tuned')]
SizeOrSide = Annotated[Size, BeforeValidator(_square, json_schema_input_type=Size | PositiveInt)]


class Backbone(StrictModel):
    name: str
    options: dict[str, Any] = {}
    """options of the backbone, over those that its name stands for"""
    checkpoint: str | None = None
    """file, URL or hybrid://NAME; null: from scratch"""
    seeds: Seeds | None = None
    """in place of the spec's"""
    frozen: Frozen | None = None


BackboneOrName = Annotated[Backbone, BeforeValidator(_named, json_schema_input_type=Backbone | str)]


class Framework(StrictModel):
    name: str
    """mask_rcnn, cascade_mask_rcnn, upernet or any other"""
    config: str
    """path, relative to the spec, or mmdet::... or mmseg::..."""
    datasets: Unique[str]
    """names; folders are given when the sweep is run"""
    schedules: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] = {'as configured': {}}
    """name: options over the config's, with dotted keys"""
    size: Size | None = None
    """for cost, speed and memory; default: 800x1280 for detectors, 512x2048 for segmentors"""
    multi_scale: bool = False
    """segmentors: evaluate with several scales and flips as well"""
    engine: Literal['onnxruntime', 'openvino'] | None = None
    """what evaluates and times the model, as an exported file; null: PyTorch"""


class Effort(StrictModel):
    """How long speed and memory are measured, see docs/speed.md."""

    iterations: PositiveInt = 20
    """at most"""
    seconds: float = 20
    """after which no iteration starts"""
    train_memory: bool = True
    """measure the peak of a training step too"""


class Profile(StrictModel):
    """Cost, speed and memory of backbones alone."""

    backbones: list[str]
    """names, or shell patterns of them"""
    sizes: Annotated[list[SizeOrSide], Field(min_length=1)]


class Spec(StrictModel):
    tier: Literal['smoke', 'proxy', 'full']
    backbones: list[BackboneOrName] = []
    frameworks: list[Framework] = []
    seeds: Seeds = [0]
    frozen: Frozen = [False]
    precision: Literal['fp32', 'bf16', 'fp16'] = 'fp32'
    effort: Effort = Effort()
    profile: Profile | None = None


def read_spec(path: str | Path) -> Spec:
    """Read and validate a spec file.

    Raises:
        FileNotFoundError: No such spec.
        SpecError: It is not YAML, does not follow the schema, or names backbones, configs or checkpoints that do not
            exist. All problems at once.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no spec {path}; examples are in configs/transfer/')
    try:
        spec = Spec.model_validate(yaml.safe_load(path.read_text(encoding='utf-8')))
    except yaml.YAMLError as error:
        raise SpecError(f'{path} is not YAML: {error}') from error
    except ValidationError as error:
        raise _error(path, describe_errors(error)) from error
    if problems := list(dict.fromkeys(_missing(spec, path.parent))):
        raise _error(path, problems)
    return spec


def _error(path: Path, problems: list[str]) -> SpecError:
    return SpecError('\n  '.join([f'{path}: {describe_count(problems)}', *problems]))


def _missing(spec: Spec, folder: Path) -> Iterator[str]:
    """What the spec names that does not exist."""
    for backbone in spec.backbones:
        try:
            build_stages(backbone.name, backbone.options)
        except ValueError as error:
            yield f'backbones: {_shorten(error)}'
        try:
            find_checkpoint(backbone.checkpoint, folder)
        except (OSError, ValueError) as error:
            yield f'checkpoint of {backbone.name}: {error}'
    for framework in spec.frameworks:
        try:
            _, values = load_framework_config(framework.config, folder)
        except (OSError, ValueError) as error:
            yield f'config of {framework.name}: {error}'
            continue
        if framework.engine and spec.precision != 'fp32':
            yield f'engine of {framework.name}: files compute in fp32, and the spec has precision {spec.precision}'
        if framework.multi_scale and framework.engine:
            yield f'multi_scale of {framework.name}: a file for {framework.engine} has one scale'
        elif framework.multi_scale:
            yield from (f'multi_scale of {framework.name}: {text}' for text in _multi_scale_problems(values))
    for pattern in spec.profile.backbones if spec.profile else ():
        if not list_backbones(pattern):
            yield f'profile: no backbone matches {pattern!r}'


def _multi_scale_problems(values: dict[str, Any]) -> Iterator[str]:
    """Why a config cannot be tested at several scales."""
    if values.get('default_scope') != 'mmseg':
        yield 'segmentors only; mmdet cannot merge the masks of several views'
    elif 'tta_pipeline' not in values:
        yield 'the config has no tta_pipeline; configs/_base_/shapes_segmentation.py shows one'


def _shorten(error: ValueError) -> str:
    """An unknown backbone without the list of all names, but with the nearest ones."""
    text, _, hint = str(error).partition('. Did you mean')
    return text.partition('; choose one of')[0] + (f'. Did you mean{hint}' if hint else '')
