"""`torch.compile` for the parts of a model that compile well: backbone and neck, not heads that loop over images."""

import os
import shutil

import torch
from torch import nn

from .model_checks import unwrap


def check_compiler(backend: str) -> None:
    """Compile a line of code, so that a missing compiler is reported now and not in the first iteration.

    Raises:
        RuntimeError: It does not compile here; the message says what to install.
        ValueError: No such backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ValueError(f'--compile {backend}: expected one of {", ".join(known)}')
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    help_text = 'install one (apt install g++, dnf install gcc-c++, conda install cxx-compiler), or leave out --compile'
    wanted = [os.environ['CXX']] if os.environ.get('CXX') else ['g++', 'clang++', 'cl']
    if backend == 'inductor' and device == 'cpu' and not any(map(shutil.which, wanted)):
        raise RuntimeError(f'--compile needs a C++ compiler, and there is no {" nor ".join(wanted)} here: {help_text}')
    try:
        torch.compile(lambda x: x.sin() + 1, backend=backend)(torch.ones(8, device=device))
    except Exception as error:
        raise RuntimeError(
            f'--compile does not work here: the backend {backend} failed at one line of code '
            f'({type(error).__name__}: {str(error).strip().splitlines()[0]}). If a compiler is missing, {help_text}'
        ) from error


def compile_parts(model: nn.Module, backend: str = 'inductor') -> list[str]:
    """Compile a detector's or segmentor's backbone and neck in place; names of weights stay the same.

    The first image size compiles for itself, the second for any size; a few more follow where layers pad.

    Returns:
        What was compiled.
    """
    check_compiler(backend)
    model = unwrap(model)
    parts = [name for name in ('backbone', 'neck') if isinstance(getattr(model, name, None), nn.Module)]
    if not parts:
        raise ValueError(f'--compile compiles backbone and neck, and {type(model).__name__} has neither')
    for name in parts:
        getattr(model, name).compile(backend=backend)
    return parts
