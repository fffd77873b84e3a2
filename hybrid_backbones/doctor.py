"""`python -m hybrid_backbones.doctor`: what is installed here, whether it works together, how to mend what does not.

Every check returns rows of the table and problems; the last one trains Mask R-CNN for one step. Exit status 1 if that
fails. Only the standard library is imported at the top: this runs where everything else is missing.
"""

import contextlib
import functools
import importlib.machinery
import importlib.util
import io
import os
import platform
import re
import shutil
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path


@dataclass(frozen=True)
class Row:
    what: str
    version: str
    remark: str = ''


@dataclass(frozen=True)
class Problem:
    """`fatal` means that the main job, training a detector from a config, cannot run."""

    text: str
    fix: str
    fatal: bool = False


Findings = tuple[list[Row], list[Problem]]

# Import name and what it is for.
COMPONENTS = {
    'torch': 'tensors and training',
    'torchvision': 'operators',
    'mmengine': 'runner and configs',
    'mmcv': 'layers and image transforms',
    'mmdet.models': 'detection',
    'mmseg.models': 'segmentation',
    'timm': 'backbones of timm',
    'numpy': 'arrays',
    'cv2': 'images',
    'pycocotools': 'COCO masks and metrics',
    'safetensors': 'checkpoint files',
}
MODULES = {'mmsegmentation': 'mmseg'}
# Releases (first, first no more) that the Python code of mmdet 3 and mmsegmentation 1 works with.
MMCV_RANGE = '2.0.1', '2.3'
LITE = 'mmcv-lite>=2.0.1,<2.2'
TESTED = "'mmengine==0.10.7' 'mmcv-lite==2.1.0' 'mmdet==3.3.0' 'mmsegmentation==1.2.2'"
# Why a requirement exists, where its absence goes unnoticed at first.
REASONS = {
    'setuptools': "without pkg_resources mmdet's and mmseg's own tools cannot read `mmdet::` bases; this package's can",
    'ftfy': "mmsegmentation's text tokenizer needs it",
    'regex': "mmsegmentation's text tokenizer needs it",
}


def python() -> Findings:
    return [Row('python', platform.python_version(), sys.executable)], []


def components() -> Findings:
    """Import every component; a broken one is a problem here, a missing one in `requirements`."""
    rows, problems, seen = [], [], set()
    for module, purpose in COMPONENTS.items():
        owners = _owners(module)
        label = ', '.join(owners) or module.split('.')[0]
        version = ', '.join(metadata.version(owner) for owner in owners) or 'missing'
        error = _import_error(module) if owners else ''
        rows.append(Row(label, version, f'{purpose}: cannot be imported' if error else purpose))
        if error and error not in seen:  # where torch is broken, all are
            alone = '' if module == 'torch' else '--no-deps '
            fix = f"pip install --force-reinstall {alone}'{_requirement(owners[0])}'"
            problems.append(Problem(f'{label} {version} is installed but cannot be imported: {error}', fix))
        seen.add(error)
    return rows, problems


def requirements() -> Findings:
    """Installed versions against those that this package declares."""
    rows, problems = [], []
    for requirement in _declared():
        version = _version(requirement.name)
        if requirement.name in REASONS:
            rows.append(Row(requirement.name, version or 'missing'))
        if version is None and _owners(MODULES.get(requirement.name, requirement.name)):
            continue  # a fork's distribution brings the module
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            state = f'{requirement.name} {version} is installed, {requirement} is required'
            text = state if version else f'{requirement.name} is missing'
            reason = f': {REASONS[requirement.name]}' if requirement.name in REASONS else ''
            problems.append(Problem(text + reason, f"pip install '{requirement}'"))
    return rows, problems


def duplicates() -> Findings:
    """Distributions that install the same module (mmcv and mmcv-lite, onedl-mmcv and mmcv) overwrite its files."""
    problems = []
    for module in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'pycocotools', 'cv2'):
        owners = _owners(module)
        if len(owners) > 1:
            named = ' and '.join(f'{owner} {metadata.version(owner)}' for owner in owners)
            fix = f"pip uninstall -y {' '.join(owners)} && pip install '{_requirement(_keep(module, owners))}'"
            problems.append(Problem(f"{named} both install `{module}` and overwrite each other's files", fix))
    return [], problems


def operators() -> Findings:
    """Where mmcv's operators come from, and whether mmcv's version is one that works."""
    error = _import_error('mmcv')
    if error:
        missing = [] if _owners('mmcv') else [Problem('mmcv is missing', f"pip install '{LITE}'")]
        return [Row('operators', 'missing', error)], missing
    problems = []
    version = importlib.import_module('mmcv').__version__
    first, end = MMCV_RANGE
    if not _release(first) <= _release(version) < _release(end):
        text = f'mmcv {version} is installed, {first} or newer and older than {end} is needed'
        problems.append(Problem(text, f"pip install '{LITE}'"))
    error = _import_error('mmcv.ops')
    if error and not _import_error('torch'):
        problems.append(Problem(f"mmcv's operators cannot be imported: {error}", f"pip install '{LITE}'"))
    if error:
        return [Row('operators', 'missing', error)], problems
    from .compat import applied

    if 'operators' not in applied:
        return [Row('operators', version, 'compiled mmcv')], problems
    if 'cannot be loaded' in applied['operators']:
        fix = f"pip uninstall -y mmcv && pip install '{LITE}', or rebuild it: see docs/install.md"
        problems.append(Problem(applied['operators'], fix))
    return [Row('operators', _version('torchvision') or '', 'stand-in from torch and torchvision')], problems


def devices() -> Findings:
    if _import_error('torch'):
        return [], []
    from torch import cuda

    from .compat.amp import bf16_instructions

    unit = bf16_instructions()
    bf16 = f'bfloat16 ({unit})' if unit else 'bfloat16 emulated, slower than float32'
    rows = [Row('CPU', f'{os.cpu_count()} cores', f'{_cpu_name()}: float32, {bf16}')]
    problems = _unusable_gpu()
    for index in range(cuda.device_count()):
        device = cuda.get_device_properties(index)
        size = f'{device.total_memory / 2**30:.0f} GiB'
        error = _gpu_error(index)
        precision = 'float32, float16' + (', bfloat16' if device.major >= 8 else '')
        rows.append(Row(f'GPU {index}', size, f'{device.name}: {"cannot be used" if error else precision}'))
        if error:
            fix = f'install a torch that supports compute capability {device.major}.{device.minor}'
            problems.append(Problem(f'GPU {index} ({device.name}) fails on the first operation: {error}', fix))
    return rows, problems


def main_job() -> Findings:
    """Train Mask R-CNN for one step."""
    start = time.perf_counter()
    try:
        with _quiet():
            _train_one_step()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f'Mask R-CNN cannot be trained: {_say(error)} ({where.filename}:{where.lineno})'
        return [Row('Mask R-CNN', '', 'cannot be trained')], [
            Problem(text, f'mend the problems above; if there are none: pip install {TESTED}', fatal=True)
        ]
    return [Row('Mask R-CNN', '', f'one training step with Conv2Former-N: {time.perf_counter() - start:.1f} s')], []


def mended() -> Findings:
    if _import_error('torch'):
        return [], []
    from .compat import applied

    return [Row('mended', piece, message) for piece, message in applied.items()], []


def _train_one_step() -> None:
    import torch
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.structures import InstanceData

    importlib.import_module('hybrid_backbones.backbones')
    register_all_modules()
    config = Config.fromstring("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'", '.py').model
    config.backbone = dict(type='Conv2Former', arch='nano')
    config.neck.in_channels = [64, 128, 256, 512]
    config.train_cfg.rcnn.sampler.num = 16  # RoIs: enough to pass through every head
    model = MODELS.build(config).train()
    sample = DetDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[16.0, 16.0, 80.0, 80.0]]),
        labels=torch.tensor([0]),
        masks=BitmapMasks([_square()], 128, 128),
    )
    batch = model.data_preprocessor(dict(inputs=[torch.zeros(3, 128, 128)], data_samples=[sample]), training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()


def _square():
    import numpy as np

    mask = np.zeros((128, 128), np.uint8)
    mask[16:80, 16:80] = 1
    return mask


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return {module: sorted(set(owners)) for module, owners in metadata.packages_distributions().items()}


def _owners(module: str) -> list[str]:
    """Distributions that install `module`."""
    return _distributions().get(module.split('.')[0], [])


def _keep(module: str, owners: list[str]) -> str:
    """The one of the module's own name, whose versions mmdet checks; mmcv-lite where mmcv is not compiled."""
    if owners == ['mmcv', 'mmcv-lite']:
        folders = importlib.util.find_spec('mmcv').submodule_search_locations
        return 'mmcv' if importlib.machinery.PathFinder.find_spec('mmcv._ext', folders) else 'mmcv-lite'
    return min(owners, key=lambda owner: (owner.startswith('onedl'), owner != module))


def _declared() -> list:
    """Requirements of this package, without its extras; none where it was not installed."""
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in metadata.requires('hybrid_backbones') or []]
    except metadata.PackageNotFoundError:
        return []
    return [item for item in declared if item.marker is None or item.marker.evaluate({'extra': ''})]


def _requirement(distribution: str) -> str:
    """What to ask pip for: this package's range, where it has one."""
    return next((str(item) for item in _declared() if item.name == distribution), distribution)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r'\d+(\.\d+)*', version).group().split('.'))


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _import_error(module: str) -> str:
    """Why `module` cannot be imported; empty where it can."""
    try:
        with _quiet():
            importlib.import_module(module)
    except Exception as error:
        return _say(error)
    return ''


def _say(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip() or "no message"}'


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the chatter of libraries; the table comes from this module alone."""
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.machine())


def _unusable_gpu() -> list[Problem]:
    import torch

    if torch.cuda.is_available() or shutil.which('nvidia-smi') is None:
        return []
    if torch.version.cuda is None:
        return [Problem('an NVIDIA driver is here, and this torch is built for CPUs', 'install a CUDA build of torch')]
    text = f'torch is built for CUDA {torch.version.cuda} and sees no GPU, though there is an NVIDIA driver'
    return [Problem(text, 'update the driver, or install a torch built for the CUDA version that nvidia-smi shows')]


def _gpu_error(index: int) -> str:
    import torch

    try:
        (torch.ones(1, device=f'cuda:{index}') + 1).item()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ''


CHECKS: tuple[Callable[[], Findings], ...] = (
    python, components, requirements, duplicates, operators, devices, main_job, mended,
)  # fmt: skip


def show(rows: list[Row], problems: list[Problem]) -> str:
    """The table, the problems with their fixes, and the verdict."""
    widths = [max(len(getattr(row, column)) for row in rows) for column in ('what', 'version')]
    lines = [f'{row.what:{widths[0]}}  {row.version:{widths[1]}}  {row.remark}'.rstrip() for row in rows]
    for number, problem in enumerate(problems, 1):
        lines += ['', f'Problem {number}: {problem.text}', f'  Fix: {problem.fix}']
    broken = any(problem.fatal for problem in problems)
    verdict = 'Training a detector from a config does NOT work here.' if broken else 'Training a detector works here.'
    return '\n'.join([*lines, '', verdict])


def main() -> int:
    findings = [check() for check in CHECKS]
    problems = [problem for _, found in findings for problem in found]
    print(show([row for rows, _ in findings for row in rows], problems))
    return int(any(problem.fatal for problem in problems))


if __name__ == '__main__':
    sys.exit(main())
