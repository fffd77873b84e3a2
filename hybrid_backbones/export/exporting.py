"""A trained config as a file, image in and results out, that is compared with PyTorch before it is left."""

import copy
import hashlib
import json
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DATASETS, DefaultScope
from torch import nn
from torch.export import Dim, ExportedProgram

from .. import __version__
from .._files import write_whole
from .._tasks import is_segmentor
from ..backbones.pyramid import PyramidBackbone
from ..datasets.roots import walk
from ..engine.trained_model import load_trained
from .evaluation import TestSplit, apart
from .formats import FORMATS, Programs
from .input_rule import read_input_rule
from .preprocessing import InputRule, Preprocessing, preprocessing_of
from .programs import ExportError, export_program
from .runtime import FORMAT_VERSION, DeployedModel, file_hash, list_images, meta_file, read_image
from .verification import compare, failures, image_batches, worst

# The least side of an image that is not resized: two cells of the coarsest map, see programs.py.
_SMALLEST = 64
# Of a folder or dataset, how many are compared.
_IMAGES = 5
_PACKAGES = (
    'torch',
    'torchvision',
    'mmengine',
    'mmdet',
    'mmsegmentation',
    'onnx',
    'onnxscript',
    'onnxruntime',
    'openvino',
)


def export_model(
    cfg: Config,
    checkpoint: str | Path,
    out: str | Path,
    file_format: str = 'onnx',
    images: str | Path | None = None,
    test_split: Config | None = None,
    image_dtype: str = 'uint8',
    paste_masks: bool = True,
    fp16: bool = False,
    opset: int | None = None,
) -> dict[str, Any]:
    """Write a detector or segmentor as `out`, with a JSON beside it that says what it is and how it was verified.

    Args:
        cfg: Config of ours, mmdet or mmseg, as read.
        checkpoint: Weights of that config's model.
        out: File to write; its suffix is the format's.
        file_format: `onnx`, `openvino`, `torch` or `aotinductor`.
        images: Image or folder of images to verify the file with; by default scenes of the embedded dataset.
        test_split: `cfg` as `load_config` reads it, to verify the file with its test split and compare the metrics.
        image_dtype: Of the images that the file takes: `uint8` or `float32`, from 0 to 255.
        paste_masks: Masks at the size of the image; else of their boxes, for `runtime.paste_masks`.
        fp16: Keep weights in float16.
        opset: Of ONNX; None for the exporter's choice.

    Returns:
        What the JSON holds.

    Raises:
        CheckpointError: The checkpoint is of another model.
        ExportError: The model does not export, or the file differs from PyTorch; nothing is left of it.
        FileNotFoundError: No such checkpoint, or no images.
        ValueError: A part of the config is not exported, or `out` does not fit the format.
    """
    if images:
        list_images(Path(images))  # before the minutes that exporting takes
    model, classes = load_trained(cfg, checkpoint)
    with written_model(
        cfg, model, out, Path(checkpoint).name, classes, file_format, image_dtype, paste_masks, fp16, opset
    ) as (path, meta):
        meta['verification'] = _verify(model, path, meta, images, test_split)
    return meta


@contextmanager
def written_model(
    cfg: Config,
    model: nn.Module,
    out: str | Path,
    weights: str,
    classes: list[str] | None = None,
    file_format: str = 'onnx',
    image_dtype: str = 'uint8',
    paste_masks: bool = True,
    fp16: bool = False,
    opset: int | None = None,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A model as a file that is not yet at its place: it takes it at the end of the `with`, if nothing is raised.

    Args:
        cfg: The model's config.
        model: In eval mode.
        out, file_format, image_dtype, paste_masks, fp16, opset: As :func:`export_model`.
        weights: Where they are from, for the JSON.
        classes: Those that the weights were trained with, if known.

    Yields:
        The file, with a JSON beside it, and what the JSON at its place will hold, to be added to.

    Raises:
        ExportError, ValueError: As :func:`export_model`.
    """
    out = Path(out)
    chosen = FORMATS[file_format]
    if out.suffix != chosen.suffix:
        raise ValueError(f'{out}: a file of the format {file_format} ends in {chosen.suffix}')
    if not chosen.by_onnx and (opset is not None or fp16):
        raise ValueError(f'opset={opset}, fp16={fp16}: for the formats onnx and openvino, not for {file_format}')
    options = dict(opset=opset, fp16=fp16) if chosen.by_onnx else {}
    rule = read_input_rule(cfg)
    whole = _whole(_fused(model), paste_masks)
    meta = _describe(cfg, weights, model, _classes(cfg, classes), rule, image_dtype, whole.outputs)
    meta['engine'], meta['precision'] = chosen.engine, 'float16' if fp16 else 'float32'
    programs = _programs(Preprocessing(rule).eval(), whole, image_dtype)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp('.partial', f'.{out.name}.', out.parent))
    try:
        texts = {'hybrid_backbones': json.dumps(meta), 'classes': json.dumps(meta['classes'])}
        files = chosen.write(Programs(*programs, whole.outputs, texts), folder / out.name, **options)
        meta['sha256'] = {file.name: file_hash(file) for file in files}
        _write_meta(folder / out.name, meta)
        yield folder / out.name, meta
        for file in files:
            file.replace(out.with_name(file.name))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _write_meta(out, meta)


def is_exported(path: Path, cfg: Config, model: nn.Module) -> bool:
    """Whether `path` is a file of this config and these weights, by the hashes in its JSON."""
    if not (path.is_file() and meta_file(path).is_file()):
        return False
    meta = json.loads(meta_file(path).read_text(encoding='utf-8'))
    return meta['config']['sha256'] == _config_hash(cfg) and meta['checkpoint']['weights_sha256'] == _weights_hash(
        model
    )


def _write_meta(path: Path, meta: dict[str, Any]) -> None:
    write_whole(meta_file(path), json.dumps(meta, indent=2))


def _fused(model: nn.Module) -> nn.Module:
    """A copy of the model with a backbone of ours in its form for inference."""
    model = copy.deepcopy(model)
    if isinstance(model.backbone, PyramidBackbone):
        model.backbone.fuse()
    return model


def _whole(model: nn.Module, paste_masks: bool) -> nn.Module:
    if hasattr(model, 'decode_head'):
        from .segmentors import ExportableSegmentor

        return ExportableSegmentor(model).eval()
    from .detections import ExportableDetector

    return ExportableDetector(model, paste_masks).eval()


def _programs(preprocessing: nn.Module, whole: nn.Module, dtype: str) -> tuple[ExportedProgram, ExportedProgram]:
    # Several cells of the coarsest map, and nothing that is equal by chance.
    height, width = 6 * whole.stride, 8 * whole.stride
    image = torch.zeros(2, height, width, 3, dtype=getattr(torch, dtype))
    first = export_program(preprocessing, (image,), ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC},))
    sizes = torch.tensor([height - 10, width - 23]), torch.tensor([2 * height - 19, 2 * width - 47])
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, None, None
    return first, export_program(whole, (torch.randn(2, 3, height, width), *sizes), dynamic)


def _classes(cfg: Config, trained: list[str] | None) -> list[str]:
    """Names of the classes in the order of the model's outputs.

    Raises:
        ValueError: The checkpoint was trained with others than the config's test dataset has.
    """
    nodes: list[dict] = []
    walk(cfg.test_dataloader.dataset, lambda node: nodes.append(node) if node.get('pipeline') else None)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        named = DATASETS.build(dict(nodes[0], lazy_init=True)).metainfo.get('classes')
    named = list(named or trained or ())
    if trained and trained != named:
        raise ValueError(f'the checkpoint was trained with the classes {trained}, the config has {named}')
    return named


def _describe(
    cfg: Config,
    weights: str,
    model: nn.Module,
    classes: list[str],
    rule: InputRule,
    image_dtype: str,
    outputs: tuple[str, ...],
) -> dict[str, Any]:
    described = dict(
        format_version=FORMAT_VERSION,
        task='segmentation' if is_segmentor(cfg) else 'detection',
        classes=classes,
        input=dict(asdict(rule), dtype=image_dtype, order='RGB', smallest=_SMALLEST if rule.scale is None else 1),
        outputs=list(outputs),
        config=dict(name=Path(cfg.filename or '').name, sha256=_config_hash(cfg)),
        checkpoint=dict(name=weights, weights_sha256=_weights_hash(model)),
        versions=versions(),
    )
    if described['task'] == 'detection' and 'masks' in outputs:
        described['mask_threshold'] = float(model.roi_head.test_cfg.mask_thr_binary)
    return described


def _config_hash(cfg: Config) -> str:
    return hashlib.sha256(cfg.pretty_text.encode()).hexdigest()


def _weights_hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that numbers depend on."""
    found = {'python': platform.python_version(), 'hybrid_backbones': __version__}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _verify(
    model: nn.Module,
    path: Path,
    meta: dict[str, Any],
    images: str | Path | None,
    test_split: Config | None,
) -> dict[str, Any]:
    """Differences between the file and PyTorch, for every batch of :func:`~.verification.image_batches` and the worst.

    Raises:
        ExportError: They are beyond the limits.
    """
    deployed, rows = DeployedModel(path), []
    preprocessing = preprocessing_of(meta)
    split = TestSplit(test_split) if test_split is not None else None
    given = split.paths(_IMAGES) if split else list_images(Path(images))[:_IMAGES] if images else []
    for batch in image_batches([read_image(path) for path in given]):
        batch = batch.astype(meta['input']['dtype'])
        found = compare(model, preprocessing, deployed, batch)
        rows.append(dict(shape=list(batch.shape), **found))
        if wrong := failures(found, meta['precision']):
            raise ExportError(f'the file differs from PyTorch on images of {batch.shape}: {"; ".join(wrong)}')
    summary = worst([{key: value for key, value in row.items() if key != 'shape'} for row in rows])
    if summary.get('detections') == 0:
        print_log(
            'Verified where the detector finds nothing, which proves little: give images of its kind (--verify IMAGES)'
        )
    report = dict(images=[path.name for path in given] or 'drawn scenes', worst=summary, batches=rows)
    if split:
        report['metrics'] = split.compare(model, deployed)
        if meta['precision'] == 'float32' and (wrong := apart(report['metrics'])):
            raise ExportError(f'the file differs from PyTorch on the test split: {"; ".join(wrong)}')
    return report
