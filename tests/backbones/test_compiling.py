"""Backbones under `torch.compile`: one graph for images of any size, equal to the network that is not compiled.

docs/compiling.md is the table of what the slow test counts, a cell for each test: `pytest --slow` with `-m FAMILY`.
"""

import copy
import re
from pathlib import Path

import pytest
import torch
from backbones.test_contract import build, grads_of, loss_of, with_stable_rounding
from families import ONE_OF_EACH, OTHER_MECHANISMS
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

PAGE = Path(__file__).parents[2] / 'docs/compiling.md'
# Images for training, whose sides are multiples of 32, and for evaluation. Below 160 pixels, the spectrum of HorNet's
# last map has fewer than two columns that stand for two, and PyTorch's backward pass treats none and one by themselves.
SIZES = {
    'training': [(160, 192), (192, 160), (224, 160), (160, 256), (256, 192)],
    'evaluation': [(65, 97), (97, 65), (131, 75), (75, 163), (161, 99)],
}
BACKENDS = 'aot_eager', 'inductor'
COLUMNS = [f'{mode}, {backend}' for backend in BACKENDS for mode in SIZES]
IN_TABLE = ONE_OF_EACH + OTHER_MECHANISMS


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Largest of the differences, each relative to the norm of its tensor."""
    return max(((a - b).norm() / b.norm().clamp(min=1e-6)).item() for a, b in zip(ours, theirs, strict=True))


def all_in_one(gradients: dict[str, Tensor]) -> list[Tensor]:
    return [torch.cat([gradient.flatten() for gradient in gradients.values()])]


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_one_graph_serves_every_size(name):
    """Traced only, with the sizes as symbols from the first image on; PyTorch's default is the slow test's."""
    network = build(name).eval()
    torch.compiler.reset()
    counter = CompileCounterWithBackend('eager')
    compiled = torch.compile(network, backend=counter, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in SIZES['evaluation'][:2]:
            image = torch.randn(2, 3, *size)
            torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)
    assert counter.frame_count <= 2


@pytest.mark.slow
@pytest.mark.parametrize('name', IN_TABLE)
@pytest.mark.parametrize('mode', SIZES)
@pytest.mark.parametrize('backend', BACKENDS)
def test_five_sizes_take_at_most_three_compilations(name, mode, backend):
    training = mode == 'training'
    # In double precision, what differs is not rounding that the network magnifies.
    dtype = torch.float64 if training and with_stable_rounding(name) else torch.float32
    network = build(name).train(training).to(dtype)
    expected_of = copy.deepcopy(network)
    torch.compiler.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(network, backend=counter, fullgraph=True)
    for size in SIZES[mode]:
        image = torch.randn(2, 3, *size, dtype=dtype)
        with torch.set_grad_enabled(training):
            maps, expected = compiled(image), expected_of(image)
        assert difference(maps, expected) < 1e-4
        if training:
            loss_of(maps).backward()
            loss_of(expected).backward()
            assert difference(all_in_one(grads_of(network)), all_in_one(grads_of(expected_of))) < 1e-3
    fill_in(name, f'{mode}, {backend}', counter.frame_count)
    assert counter.frame_count <= 3


def fill_in(name: str, column: str, compilations: int) -> None:
    """One cell of the table in docs/compiling.md."""
    lines = PAGE.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith(f'| `{name}` |'))
    cells = lines[row].split('|')
    cells[2 + COLUMNS.index(column)] = f' {compilations} '
    lines[row] = '|'.join(cells)
    PAGE.write_text('\n'.join(lines) + '\n')


def test_page_has_every_family():
    text = PAGE.read_text()
    assert re.findall(r'^\| `(\S+)` \|', text, re.MULTILINE) == IN_TABLE
    assert f'| network | {" | ".join(COLUMNS)} |' in text
