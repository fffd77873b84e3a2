"""Kernels that backbones launch on a CUDA device, and their peak memory, as a program: prints JSON per backbone.

    launches.py training|inference NAME ...

Training is a step at 800x1344, batch 2, in fp16; inference is at 512x512, batch 2, in fp32: before and after `fuse()`,
each once what is kept between passes has been made.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from null_cuda.device import leave_out_what_it_lacks
from torch import Tensor

from hybrid_backbones import create_backbone

LIBRARY, LOG = ctypes.CDLL(os.environ['NULL_CUDA_LIBRARY']), Path(os.environ['NULL_CUDA_LOG'])
# Prefixes of the device's log: PyTorch's kernels and products by cuBLAS.
LAUNCHES = b'K ', b'B '


def launches(work: Callable[[], object]) -> int:
    LIBRARY.null_cuda_on(0)
    start = LOG.stat().st_size if LOG.exists() else 0
    LIBRARY.null_cuda_on(1)
    work()
    LIBRARY.null_cuda_on(0)
    return sum(line.startswith(LAUNCHES) for line in LOG.read_bytes()[start:].splitlines())


def training(name: str) -> dict[str, int]:
    network, image = create_backbone(name).cuda().train(), torch.zeros(2, 3, 800, 1344, device='cuda')
    torch.cuda.reset_peak_memory_stats()
    maps: list[Tensor] = []
    with torch.autocast('cuda', torch.float16):
        forward = launches(lambda: maps.extend(network(image)))
    backward = launches(lambda: sum(m.float().mean() for m in maps).backward())
    return dict(forward=forward, backward=backward, peak_mib=torch.cuda.max_memory_allocated() >> 20)


@torch.no_grad()
def inference(name: str) -> dict[str, int]:
    network, image = create_backbone(name).cuda().eval(), torch.zeros(2, 3, 512, 512, device='cuda')
    first, unfused = (launches(lambda: network(image)) for _ in range(2))
    network.fuse()(image)
    return dict(first=first, unfused=unfused, fused=launches(lambda: network(image)))


def main() -> None:
    leave_out_what_it_lacks()
    count = dict(training=training, inference=inference)[sys.argv[1]]
    print(json.dumps({name: count(name) for name in sys.argv[2:]}))


if __name__ == '__main__':
    main()
