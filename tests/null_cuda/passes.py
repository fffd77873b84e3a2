"""Passes of backbones on a CUDA device, as a program: prints errors as JSON, `{backbone: [error]}`.

    passes.py pairs|all NAME ...

`pairs` is every pair of a mode, a type and a size, in a third of all passes.
"""

import inspect
import json
import sys
import traceback
from collections.abc import Iterator
from itertools import product

import torch
from backbones.test_contract import create
from null_cuda.device import leave_out_what_it_lacks
from torch import nn

from hybrid_backbones.backbones.factory import find_backbone

MODES = ('train', 'gradients', 'inference')
DTYPES = (None, torch.float16, torch.bfloat16)
# A multiple of every stride, odd sides, and a detector's.
SIZES = ((64, 64), (97, 131), (800, 1333))
PASSES = dict(
    pairs=[(mode, dtype, SIZES[(i + j) % 3]) for i, mode in enumerate(MODES) for j, dtype in enumerate(DTYPES)],
    all=list(product(MODES, DTYPES, SIZES)),
)


def networks(name: str) -> Iterator[tuple[str, nn.Module]]:
    """Forms of a backbone that take different branches."""
    yield 'plain', create(name)
    yield 'fused', create(name).eval().fuse()
    yield 'recomputed', create(name, with_cp=True, drop_path_rate=0.2)
    if 'window_size' in inspect.signature(find_backbone(name)[0]).parameters:
        # MOAT's windows are for the maps of strides 16 and 32.
        yield 'windowed', create(name, window_size=(3, 3) if name.startswith('moat') else 3)


def run(network: nn.Module, mode: str, dtype: torch.dtype | None, size: tuple[int, int]) -> None:
    """A forward pass, and a backward pass where there are gradients.

    Raises:
        RuntimeError: What a GPU would refuse, or an operation that makes the host wait for the device.
    """
    network.train(mode == 'train').zero_grad()
    image = torch.zeros(2, 3, *size, device='cuda')
    torch.cuda.set_sync_debug_mode('error')
    try:
        with torch.set_grad_enabled(mode != 'inference'), torch.autocast('cuda', dtype, enabled=dtype is not None):
            maps = network(image)
        if mode != 'inference':
            sum(m.float().mean() for m in maps).backward()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    tensors = [*maps, *(p.grad for p in network.parameters() if mode != 'inference')]
    if not all(tensor.is_cuda for tensor in tensors):
        raise RuntimeError('a map or a gradient is on the CPU')


def errors_of(name: str, passes: list[tuple[str, torch.dtype | None, tuple[int, int]]]) -> list[str]:
    """Each with the kind of pass that met it."""
    errors = []
    for form, network in networks(name):
        network.cuda()
        for mode, dtype, size in passes:
            if form == 'fused' and mode == 'train':
                continue
            try:
                run(network, mode, dtype, size)
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                errors.append(f'{form} {mode} {dtype} {size}: {error} ({where.filename}:{where.lineno})')
    return errors


def main() -> None:
    leave_out_what_it_lacks()
    passes = PASSES[sys.argv[1]]
    print(json.dumps({name: errors_of(name, passes) for name in sys.argv[2:]}))


if __name__ == '__main__':
    main()
