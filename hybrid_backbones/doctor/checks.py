"""The checks. Each returns rows of the table and problems; the last ones train Mask R-CNN for one step.

Only the standard library is imported at the top: this runs where everything else is missing. What may fail when it is
imported or run is asked of :mod:`.probes`, in a process of its own.
"""

import functools
import importlib.machinery
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import compat
from ..compat.packages import modules_of
from .isolated import answers


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
PROBES = (*(f'import:{module}' for module in COMPONENTS), 'operators', 'devices', 'main_job', 'patches')
OPENMMLAB = 'mmengine', 'mmcv', 'mmdet', 'mmseg'
MODULES = {'mmsegmentation': 'mmseg', 'mmcv-lite': 'mmcv', 'opencv-python': 'cv2'}
# Releases (first, first no more) that the Python code of mmdet 3 and mmsegmentation 1 works with.
MMCV_RANGE = {'openmmlab': ('2.0.1', '2.3'), 'onedl': ('2.3.6', '3')}
# Times that float16 takes over float32 where a loop over all elements computes it; plain emulation is at 30.
_REFERENCE_LOOP = 200
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


def stacks() -> Findings:
    """Upstream's packages and those of the onedl forks, which have the same import names, are never to be mixed."""
    forks, upstream = _forks_and_upstream()
    if not forks or not upstream:
        return [], []
    extra = 'onedl' if len(forks) >= len(upstream) else 'openmmlab'
    names = {item.name for item in _declared(extra)} - {item.name for item in _declared('')}
    wanted = ' '.join(f"'{item}'" for item in _declared(extra) if item.name in names)
    named = ' and '.join(', '.join(f'{name} {metadata.version(name)}' for name in names) for names in (forks, upstream))
    text = f'{named} are installed together: the onedl forks and upstream OpenMMLab have the same import names'
    return [], [Problem(text, f'pip uninstall -y {" ".join([*forks, *upstream])} && pip install {wanted}')]


def _forks_and_upstream() -> tuple[list[str], list[str]]:
    owners = sorted({owner for module in OPENMMLAB for owner in _owners(module)})
    forks = [owner for owner in owners if owner.startswith('onedl')]
    return forks, [owner for owner in owners if owner not in forks]


def duplicates() -> Findings:
    """Distributions that install the same module, such as mmcv and mmcv-lite, overwrite its files."""
    problems = []
    forks, _ = _forks_and_upstream()
    for module in (*OPENMMLAB, 'pycocotools', 'cv2'):
        owners = [owner for owner in _owners(module) if owner not in forks]
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
    found = _ask('operators')
    if error := found.get('error', ''):
        if not _import_error('torch'):
            problems.append(Problem(f"mmcv's operators cannot be imported: {error}", f"pip install '{LITE}'"))
        return [Row('operators', 'missing', error)], problems
    version, (first, end) = found['version'], MMCV_RANGE[_stack()]
    if not _release(first) <= _release(version) < _release(end):
        text = f'mmcv {version} is installed, {first} or newer and older than {end} is needed'
        problems.append(Problem(text, f"pip install '{_mmcv()}'"))
    if not found['patched']:
        return [Row('operators', version, 'compiled mmcv')], problems
    if 'cannot be loaded' in found['patched']:
        fix = f"pip uninstall -y mmcv && pip install '{LITE}', or rebuild it: see docs/install.md"
        problems.append(Problem(found['patched'], fix))
    return [Row('operators', _version('torchvision') or '', 'stand-in from torch and torchvision')], problems


def devices() -> Findings:
    """What the CPU and each GPU can do."""
    if _import_error('torch'):
        return [], []
    found = _ask('devices')
    if 'error' in found:
        return [], [Problem(f'torch cannot list its devices: {found["error"]}', 'reinstall torch and the GPU driver')]
    bf16 = f'bfloat16 ({found["bf16"]})' if found['bf16'] else 'bfloat16 emulated, slower than float32'
    times = found['fp16_times']
    fp16 = f'; products of float16 take {times:.0f} times as long as those of float32' if times > 2 else ''
    rows = [Row('CPU', f'{os.cpu_count()} cores', f'{_cpu_name()}: float32, {bf16}{fp16}')]
    problems = [] if found['available'] else _unusable_gpu(found['built_for'])
    if times > _REFERENCE_LOOP:
        text = (
            f'torch {_version("torch")} computes products of float16 in a reference loop here, {times:.0f} times slower'
        )
        problems.append(Problem(f'{text} than float32 (pytorch#193951)', 'use float32 or bfloat16 on this CPU'))
    for index, gpu in enumerate(found['gpus']):
        major, minor = gpu['capability']
        precision = 'float32, float16' + (', bfloat16' if major >= 8 else '')
        remark = f'{gpu["name"]}: {"cannot be used" if gpu["error"] else precision}'
        rows.append(Row(f'GPU {index}', f'{gpu["gib"]:.0f} GiB', remark))
        if gpu['error']:
            fix = f'install a torch that supports compute capability {major}.{minor}'
            problems.append(Problem(f'GPU {index} ({gpu["name"]}) fails on the first operation: {gpu["error"]}', fix))
    return rows, problems


def _unusable_gpu(built_for: str | None) -> list[Problem]:
    if shutil.which('nvidia-smi') is None:
        return []
    if built_for is None:
        return [Problem('an NVIDIA driver is here, and this torch is built for CPUs', 'install a CUDA build of torch')]
    text = f'torch is built for CUDA {built_for} and sees no GPU, though there is an NVIDIA driver'
    return [Problem(text, 'update the driver, or install a torch built for the CUDA version that nvidia-smi shows')]


def main_job() -> Findings:
    """Train Mask R-CNN for one step."""
    found = _ask('main_job')
    if 'error' not in found:
        remark = f'one training step with Conv2Former-N: {found["seconds"]:.1f} s'
        return [Row('Mask R-CNN', '', remark)], []
    where = f' ({found["where"]})' if 'where' in found else ''
    fix = f'fix the problems above; if there are none: pip install {TESTED}'
    if not compat.enabled():
        fix = f'unset {compat.SWITCH}, or {fix}'
    problem = Problem(f'Mask R-CNN cannot be trained: {found["error"]}{where}', fix, fatal=True)
    return [Row('Mask R-CNN', '', 'cannot be trained')], [problem]


def patches() -> Findings:
    """What `hybrid_backbones.compat` patched on the way, or that it is switched off."""
    if not compat.enabled():
        return [Row('patched', 'nothing', f'{compat.SWITCH}=0 in the environment leaves OpenMMLab as it is')], []
    found = _ask('patches')
    return [Row('patched', name, message) for name, message in found.items() if name != 'error'], []


@functools.cache
def _distributions() -> dict[str, list[str]]:
    owners = defaultdict(set)
    for distribution in metadata.distributions():
        for module in modules_of(distribution):
            owners[module].add(distribution.name)
    return {module: sorted(names) for module, names in owners.items()}


def _owners(module: str) -> list[str]:
    """Distributions that install `module`."""
    return _distributions().get(module.split('.')[0], [])


def _keep(module: str, owners: list[str]) -> str:
    """The one of the module's own name, whose versions mmdet checks; mmcv-lite where mmcv is not compiled."""
    if owners == ['mmcv', 'mmcv-lite']:
        folders = importlib.util.find_spec('mmcv').submodule_search_locations
        return 'mmcv' if importlib.machinery.PathFinder.find_spec('mmcv._ext', folders) else 'mmcv-lite'
    return min(owners, key=lambda owner: owner != module)


def _mmcv() -> str:
    return 'onedl-mmcv>=2.3.6' if _stack() == 'onedl' else LITE


def _stack() -> str:
    """The extra that mmcv here is of."""
    return 'onedl' if 'onedl-mmcv' in _owners('mmcv') else 'openmmlab'


def _declared(extra: str | None = None) -> list:
    """Requirements of this package and of an extra, by default of the OpenMMLab that is here; none where it was not
    installed.
    """
    from packaging.requirements import Requirement

    try:
        declared = [Requirement(text) for text in metadata.requires('hybrid_backbones') or []]
    except metadata.PackageNotFoundError:
        return []
    needed = [
        item
        for item in declared
        if item.marker is None or item.marker.evaluate({'extra': _stack() if extra is None else extra})
    ]
    for item in needed:
        item.marker = None  # pip would skip `NAME; extra == "openmmlab"`
    return needed


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


def _ask(probe: str) -> dict[str, Any]:
    return answers(*PROBES)[probe]


def _import_error(module: str) -> str:
    """Why `module` cannot be imported; empty where it can."""
    return _ask(f'import:{module}').get('error', '')


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.machine())


CHECKS: tuple[Callable[[], Findings], ...] = (
    python, components, requirements, stacks, duplicates, operators, devices, main_job, patches,
)  # fmt: skip
