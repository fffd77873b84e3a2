"""A table of what a GPU runs how fast, in one command: `python -m hybrid_backbones.profiling.gpu FOLDER`.

Writes `gpu.json` and `gpu.md` into the folder after every measurement, so that it may be stopped at any time. No
measurement starts after `--minutes`; those that are left are listed. It needs no network. `--dry-run` runs every
measurement at tiny sizes, of narrow networks and of one backbone in whole models: its times mean nothing. If there is
no GPU, it does so on the CPU, with the backends of attention that a CPU has.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._timing import timed
from ..backbones.factory import create_backbone
from ..engine.cuda import lacks_bf16_attention
from ..registry import VARIANTS
from .speed import Settings, profile

KERNELS = (3, 7, 11, 13, 31, (51, 5))
LAYOUTS = {'channels_last': torch.channels_last, 'contiguous': torch.contiguous_format}
DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
# Backends of attention that a device has; which of them take a bias, and one that learns, is measured.
BACKENDS = {
    'cuda': ('FLASH_ATTENTION', 'EFFICIENT_ATTENTION', 'CUDNN_ATTENTION', 'MATH'),
    'cpu': ('FLASH_ATTENTION', 'MATH'),
}
# Of about the cost of Swin-T; of each family the first variant, its smallest, is measured as well.
SIZE_OF_SWIN_T = (
    *('conv2former_t', 'cvt_13', 'coatnet_0', 'botnet_50', 'deit_s', 'convit_s', 'ceit_s', 'vitc_4gf'),
    *('hornet_t', 'replknet_31b', 'slak_t', 'moat_0', 'moganet_t'),
)
COMPARATORS = ('timm:convnext_tiny', 'timm:swin_tiny_patch4_window7_224', 'timm:resnet50')
DETECTOR = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
SEGMENTOR = 'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py'
IN_WHOLE_MODELS = ('conv2former_t', 'cvt_13', 'coatnet_0', 'slak_t')
TITLES = {
    'depthwise': 'Depthwise convolution, 192 channels at 64x64 pixels',
    'attention': 'Attention with a bias, 4,096 positions, 12 heads of 32',
    'backbones': 'Backbones',
    'whole models': 'Mask R-CNN and UperNet',
    'compiled': 'Backbones by torch.compile',
}


@dataclass(frozen=True)
class Job:
    """One measurement: a line of the table `section`."""

    section: str
    what: dict[str, Any]
    measure: Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Scale:
    """Sizes of all measurements."""

    device: str
    dry: bool

    @property
    def batch_size(self) -> int:
        return 2 if self.dry else 8

    @property
    def side(self) -> int:
        return 64 if self.dry else 512

    @property
    def seconds(self) -> float:
        """For the iterations of a measurement."""
        return 0.0 if self.dry else 2.0


def time_of(step: Callable[[], Any], scale: Scale) -> float:
    """Median milliseconds of a call, over a tenth of the measurement's seconds or five calls."""
    for _ in range(1 if scale.dry else 5):
        step()
    times, begin = [], time.perf_counter()
    while len(times) < (1 if scale.dry else 5) or time.perf_counter() - begin < scale.seconds / 10:
        times.append(timed(step, scale.device))
    return round(1000 * median(times), 4)


def depthwise(kernel: int | tuple[int, int], layout: str, dtype: str, library: str, scale: Scale) -> dict[str, float]:
    """Milliseconds of a convolution, and of one with its backward pass."""
    rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
    channels, side = (8, 16) if scale.dry else (192, 64)
    options = dict(device=scale.device, dtype=DTYPES[dtype], requires_grad=True)
    x = torch.randn(scale.batch_size, channels, side, side, **options)
    x = x.detach().to(memory_format=LAYOUTS[layout]).requires_grad_()
    weight = torch.randn(channels, 1, rows, columns, **options)
    convolve = partial(F.conv2d, x, weight, padding=(rows // 2, columns // 2), groups=channels)
    with torch.backends.cudnn.flags(enabled=library == 'cuDNN' and torch.backends.cudnn.enabled):
        with torch.no_grad():
            forward = time_of(convolve, scale)
        return dict(forward_ms=forward, training_ms=time_of(lambda: convolve().sum().backward(), scale))


def attention(backend: str, dtype: str, learned_bias: bool, scale: Scale) -> dict[str, float]:
    """Milliseconds of attention by one backend, and of that with its backward pass."""
    heads, tokens = (2, 64) if scale.dry else (12, 4096)
    options = dict(device=scale.device, dtype=DTYPES[dtype])
    q, k, v = (torch.randn(2, heads, tokens, 32, **options, requires_grad=True) for _ in range(3))
    bias = torch.randn(1, heads, tokens, tokens, **options, requires_grad=learned_bias)
    with sdpa_kernel(getattr(SDPBackend, backend)):
        attend = partial(F.scaled_dot_product_attention, q, k, v, attn_mask=bias)
        with torch.no_grad():
            forward = time_of(attend, scale)
        return dict(forward_ms=forward, training_ms=time_of(lambda: attend().sum().backward(), scale))


def network(name: str, train: bool, scale: Scale, compiler: str | None = None) -> dict[str, Any]:
    """Images per second, peak memory and share of the device's own matrix product."""
    settings = Settings(
        batch_size=2 if '.py' in name else scale.batch_size,
        dtype='fp32' if scale.dry else 'bf16',
        train=train,
        train_memory=False,
        compiler=compiler,
        device=scale.device,
        iterations=1 if scale.dry else 30,
        seconds=scale.seconds,
    )
    subject = narrow(name) if scale.dry else name
    row = profile(subject, (scale.side, scale.side), settings)
    if row.error:
        return dict(error=row.error)
    seconds, passes = row.quantile(0.5), 3 if train else 1
    share = 2 * row.macs * passes / seconds / row.machine_flops if row.macs else None
    mib = row.train_mib if train else row.inference_mib
    return dict(
        images_per_s=round(settings.batch_size / seconds, 2),
        peak_mib=None if mib is None else round(mib),
        of_matrix_peak=None if share is None else round(share, 3),
    )


def narrow(name: str) -> str | nn.Module:
    """A network of few channels and blocks with every kind of layer; of other libraries, the network itself."""
    arch = VARIANTS[name][0].tiny_arch if name in VARIANTS else None
    return name if arch is None else create_backbone(name, arch=arch)


def networks() -> list[str]:
    """The smallest and the T-size member of every family, and timm's networks beside them."""
    smallest = {cls: name for name, (cls, _) in reversed(VARIANTS.items()) if not name.startswith('timm_')}
    return list(dict.fromkeys([*reversed(smallest.values()), *SIZE_OF_SWIN_T, *COMPARATORS]))


def jobs(scale: Scale) -> Iterator[Job]:
    """All measurements, those that take longest last."""
    libraries = ('cuDNN', 'PyTorch')
    for kernel, layout, dtype, library in product(KERNELS, LAYOUTS, DTYPES, libraries):
        what = dict(kernel=kernel, layout=layout, dtype=dtype, library=library)
        yield Job('depthwise', what, partial(depthwise, **what, scale=scale))
    for backend, dtype, learned in product(BACKENDS[scale.device], DTYPES, (True, False)):
        what = dict(backend=backend, dtype=dtype, learned_bias=learned)
        yield Job('attention', what, partial(attention, **what, scale=scale))
    for name, train in product(networks(), (False, True)):
        what = dict(name=name, train=train)
        yield Job('backbones', what, partial(network, **what, scale=scale))
    # Of a detector at any size, a CPU counts and runs a thousand regions of interest.
    in_models = IN_WHOLE_MODELS[:1] if scale.dry else IN_WHOLE_MODELS
    for config, name, train in product((DETECTOR, SEGMENTOR), in_models, (False, True)):
        what = dict(name=f'{config}+{name}', train=train)
        yield Job('whole models', what, partial(network, **what, scale=scale))
    compiler = 'eager' if scale.dry else 'inductor'
    for name, train in product([*SIZE_OF_SWIN_T, *COMPARATORS], (False, True)):
        what = dict(name=name, train=train)
        yield Job('compiled', what, partial(network, **what, scale=scale, compiler=compiler))


def measure(job: Job) -> dict[str, Any]:
    """The row of a job; what cannot be run here has its error in place of figures."""
    try:
        figures = job.measure()
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        figures = dict(error=text.splitlines()[0][:200])
    return dict(section=job.section, **job.what, **figures)


def device_of(dry: bool) -> dict[str, Any]:
    """What is measured on."""
    about = dict(torch=torch.__version__, cuda=torch.version.cuda, python=platform.python_version(), dry_run=dry)
    if not torch.cuda.is_available():
        return dict(device=f'CPU ({platform.machine()})', **about)
    properties = torch.cuda.get_device_properties(0)
    return dict(
        device=properties.name,
        compute_capability=f'{properties.major}.{properties.minor}',
        memory_mib=properties.total_memory >> 20,
        cudnn=torch.backends.cudnn.version() if torch.backends.cudnn.enabled else None,
        **about,
    )


def write(folder: Path, about: dict[str, Any], rows: list[dict], left: list[Job]) -> None:
    """The two files, each replaced as a whole."""
    unmeasured = [dict(section=job.section, **job.what) for job in left]
    contents = {
        'gpu.json': json.dumps(dict(about=about, rows=rows, unmeasured=unmeasured), indent=1) + '\n',
        'gpu.md': markdown(about, rows, unmeasured),
    }
    for name, text in contents.items():
        temporary = folder / f'{name}.tmp'
        temporary.write_text(text, encoding='utf-8')
        temporary.replace(folder / name)


def markdown(about: dict[str, Any], rows: list[dict], unmeasured: list[dict]) -> str:
    """A table per section."""
    lines = [f'# {about["device"]}', '', ', '.join(f'{key} {value}' for key, value in about.items())]
    if about['dry_run']:
        lines += ['', '**A dry run: its times mean nothing.**']
    for section, title in TITLES.items():
        own = [{key: row[key] for key in row if key != 'section'} for row in rows if row['section'] == section]
        columns = list(dict.fromkeys(key for row in own for key in row))
        lines += ['', f'## {title}', '']
        if own:
            lines += [_line(columns), _line(['---'] * len(columns))]
            lines += [_line('' if row.get(key) is None else row[key] for key in columns) for row in own]
        if left := sum(job['section'] == section for job in unmeasured):
            lines += ['', f'{left} not measured: the time was over.']
    return '\n'.join(lines) + '\n'


def _line(cells: Any) -> str:
    return f'| {" | ".join(str(cell).replace("|", "/") for cell in cells)} |'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m hybrid_backbones.profiling.gpu', description=__doc__)
    parser.add_argument('folder', type=Path, help='where gpu.json and gpu.md are written')
    parser.add_argument('--minutes', type=float, default=8.5, help='no measurement starts later (default: 8.5)')
    parser.add_argument('--dry-run', action='store_true', help='everything at tiny sizes, without a GPU as well')
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.dry_run:
        built = f'is built for CUDA {torch.version.cuda}' if torch.version.cuda else 'is built without CUDA'
        parser.error(
            f'PyTorch sees no NVIDIA GPU; torch {torch.__version__} {built}. `nvidia-smi` shows the GPU and the newest '
            'CUDA of its driver: an older one needs a driver update, or another torch. --dry-run needs no GPU'
        )
    return args


def main() -> None:
    args = parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    scale = Scale('cuda' if torch.cuda.is_available() else 'cpu', args.dry_run)
    about, rows, end = device_of(args.dry_run), [], time.perf_counter() + 60 * args.minutes
    if scale.device == 'cuda' and (warning := lacks_bf16_attention()):
        print(warning)
    left = list(jobs(scale))
    total = len(left)
    try:
        while left and time.perf_counter() < end:
            rows.append(measure(left[0]))
            left.pop(0)
            print(f'{len(rows)}/{total} {rows[-1]}', flush=True)
            write(args.folder, about, rows, left)
    except KeyboardInterrupt:
        print('stopped')
    print(f'{len(rows)} of {total} measurements in {args.folder / "gpu.md"} and gpu.json')


if __name__ == '__main__':
    main()
