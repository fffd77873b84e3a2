"""Backbones as exported programs and ONNX files: equal to PyTorch at sizes that were not traced.

docs/exporting.md is the table of what the slow test measures, a row for each test: `pytest --slow` with `-m FAMILY`.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones.test_contract import build, lively
from families import ONE_OF_EACH, OTHER_MECHANISMS
from torch import Tensor, nn

from hybrid_backbones import create_backbone
from hybrid_backbones.export.backbones import backbone_to_onnx, export_backbone
from hybrid_backbones.export.programs import ExportError, export_program, to_onnx

PAGE = Path(__file__).parents[2] / 'docs/exporting.md'
COLUMNS = 'torch.export', 'torch.export, strict', 'onnxruntime', 'OpenVINO'
HEADER = f'| network | {" | ".join(COLUMNS)} |'
# Odd, portrait, landscape, a pixel less and more than a multiple of the stride; two images and one.
SHAPES = [(2, 97, 131), (1, 161, 95), (1, 64, 160), (2, 95, 127), (1, 129, 65)]
TOLERANCE = 1e-4
# Timm's networks of more than one kind of attention, and Swin, by the names of rows.
OF_TIMM = {
    'timm_swin_t': dict(
        model_name='swin_tiny_patch4_window7_224',
        embed_dim=16,
        depths=(2, 2, 2, 2),
        num_heads=(1, 1, 2, 2),
        window_size=2,
    ),
    'timm_maxvit_t': 'test_maxvit',
}
# Two windows of the last map.
LEAST = {'timm_swin_t': 128, 'timm_maxvit_t': 320}
NAMES = [*ONE_OF_EACH, *OTHER_MECHANISMS, *OF_TIMM]
ROWS = [f'{name}{fused}' for name in NAMES for fused in ('', ', fused')]
# What default tests put through onnxruntime: biased attention, global filters, resized positions.
THROUGH_ONNX = ['botnet_50', 'hornet_t', 'deit_t']
# What engines do otherwise, by row and column, as the page says it.
WRONG = {
    ('timm_deit3_s', 'OpenVINO'): 'positions are resized without antialiasing',
    ('timm_coatnet_0_rw', 'OpenVINO'): 'maps are empty',
}


def network_of(row: str) -> nn.Module:
    name, _, fused = row.partition(', ')
    network = lively(create_backbone(name, arch=OF_TIMM[name])) if name in OF_TIMM else build(name)
    return network.eval().fuse() if fused else network.eval()


def largest_error(
    run: Callable[[Tensor], list[Tensor]], network: Callable[[Tensor], list[Tensor]], shapes: list[tuple] = SHAPES
) -> float:
    """Of any map at any size, relative to its norm; infinite for maps of other sizes."""
    errors = []
    for images, *size in shapes:
        image = torch.randn(images, 3, *size)
        with torch.no_grad():
            maps, expected = run(image), network(image)
        if [m.shape for m in maps] != [m.shape for m in expected]:
            return math.inf
        errors += [((a - b).norm() / b.norm()).item() for a, b in zip(maps, expected, strict=True)]
    return max(errors)


def with_onnxruntime(path: Path) -> Callable[[Tensor], list[Tensor]]:
    onnxruntime = pytest.importorskip('onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda image: [torch.from_numpy(m) for m in session.run(None, {'image': image.numpy()})]


def with_openvino(path: Path) -> Callable[[Tensor], list[Tensor]]:
    openvino = pytest.importorskip('openvino')
    options = dict(INFERENCE_PRECISION_HINT='f32', INFERENCE_NUM_THREADS=1)
    compiled = openvino.Core().compile_model(path, 'CPU', options)
    return lambda image: [torch.from_numpy(np.array(m)) for m in compiled(image.numpy()).values()]


@pytest.mark.parametrize('name', THROUGH_ONNX)
def test_onnx_file_is_right_at_sizes_that_were_not_traced(name, tmp_path):
    pytest.importorskip('onnxscript')
    network = network_of(name)
    path = backbone_to_onnx(network, tmp_path / 'backbone.onnx', metadata=dict(name=name))
    assert largest_error(with_onnxruntime(path), network, SHAPES[:3]) < TOLERANCE
    assert [p.name for p in tmp_path.iterdir()] == ['backbone.onnx']


@pytest.mark.slow
@pytest.mark.parametrize('row', ROWS)
def test_every_engine_is_right_at_sizes_that_were_not_traced(row, tmp_path):
    network, name = network_of(row), row.partition(', ')[0]
    least = LEAST.get(name, 64)
    shapes = [(images, *(side * least // 64 for side in size)) for images, *size in SHAPES]
    programs = [export_backbone(network, least, strict) for strict in (False, True)]
    names = [f'map_{i}' for i in range(4)]
    path = to_onnx(programs[0], tmp_path / 'backbone.onnx', ['image'], names)
    runs = [*(program.module() for program in programs), with_onnxruntime(path), with_openvino(path)]
    errors = {column: largest_error(run, network, shapes) for column, run in zip(COLUMNS, runs, strict=True)}
    fill_in(row, [_cell(name, column, error) for column, error in errors.items()])
    for column, error in errors.items():  # a reason that no longer holds fails, too
        assert (error < TOLERANCE) == ((name, column) not in WRONG), column


def _cell(name: str, column: str, error: float) -> str:
    reason = WRONG.get((name, column))
    return f'{error:.0e}: {reason}' if reason else f'{error:.0e}' if error < TOLERANCE else f'**{error:.0e}**'


def fill_in(row: str, cells: list[str]) -> None:
    """One row of the table in docs/exporting.md."""
    lines = PAGE.read_text().splitlines()
    place = next(i for i in range(lines.index(HEADER), len(lines)) if lines[i].startswith(f'| {row} |'))
    lines[place] = f'| {row} | {" | ".join(cells)} |'
    PAGE.write_text('\n'.join(lines) + '\n')


def test_page_has_every_family():
    table = PAGE.read_text().partition(HEADER)[2]
    assert re.findall(r'^\| (\w+(?:, fused)?) \|', table, re.MULTILINE) == ROWS


class AsksForMultiples(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[2] % 4 == 0 else x * 3


class FixesTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(len(x), 1, device=x.device) + x.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize('strict', [False, True])
def test_a_network_that_is_right_for_some_sizes_only_is_refused(strict):
    with pytest.raises(ExportError, match=r'AsksForMultiples would be wrong for inputs of other sizes.*% 4'):
        export_program(AsksForMultiples().eval(), (torch.zeros(2, 3, 64, 96),), strict=strict)


def test_a_network_for_one_number_of_images_is_refused():
    with pytest.raises(ExportError, match='of FixesTheBatch'):
        export_program(FixesTheBatch().eval(), (torch.zeros(2, 3, 64, 96),))


def test_training_mode_is_refused():
    with pytest.raises(ExportError, match=r'training mode; call eval\(\)'):
        export_program(nn.Conv2d(3, 3, 1), (torch.zeros(2, 3, 64, 96),))


def test_an_old_opset_is_refused_and_leaves_no_file(tmp_path):
    pytest.importorskip('onnxscript')
    program = export_program(nn.Conv2d(3, 3, 1).eval(), (torch.zeros(2, 3, 64, 96),))
    with pytest.raises(ExportError, match=r'opset 11 is too old.*18'):
        to_onnx(program, tmp_path / 'network.onnx', ['image'], ['map'], opset=11)
    assert not list(tmp_path.iterdir())


def test_without_conditions_of_sizes_nothing_is_exported(monkeypatch):
    """As by PyTorch before 2.9."""
    program = export_program(nn.Conv2d(3, 3, 1).eval(), (torch.zeros(2, 3, 64, 96),))
    del program._guards_code
    monkeypatch.setattr(torch.export, 'export', lambda *args, **options: program)
    with pytest.raises(ExportError, match=r'does not tell at which sizes.*2\.9'):
        export_program(nn.Conv2d(3, 3, 1).eval(), (torch.zeros(2, 3, 64, 96),))


@pytest.mark.parametrize('name', ['replknet_31b', 'slak_t', 'deit_t', 'convit_t', 'cvt_13', 'coatnet_0'])
def test_torchscript_is_right_at_the_traced_size(name):
    """Of fvcore's and MMEngine's counters of operations, which trace a network so."""
    network, image = build(name).eval(), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        traced = torch.jit.trace(network, (torch.randn(1, 3, 64, 96),), check_trace=False)
    assert largest_error(lambda _: traced(image), lambda _: network(image), [(1, 64, 96)]) < TOLERANCE
