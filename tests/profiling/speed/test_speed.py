"""Measurements of time and memory: paired ratios, stability, memory limits, whole models, and the command."""

import ast
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from families import tiny_arch
from torch import Tensor, nn

from hybrid_backbones import create_backbone
from hybrid_backbones.profiling.growth import growth_exponent
from hybrid_backbones.profiling.speed import compare, profile
from hybrid_backbones.profiling.speed.machine import (
    MatrixProduct,
    available_memory,
    out_of_memory,
    peak_memory,
    within_available_memory,
)
from hybrid_backbones.profiling.speed.records import Settings, Speed, growth, table
from hybrid_backbones.profiling.speed.whole_model import WholeModel
from hybrid_backbones.profiling.subjects import create_network

ROOT = Path(__file__).parents[3]
TOOL = ROOT / 'tools' / 'benchmark_speed.py'
DETECTOR = str(ROOT / 'configs' / 'maskrcnn_conv2former_n_shapes.py')
SEGMENTOR = str(ROOT / 'configs' / 'upernet_conv2former_n_shapes.py')
ONCE = Settings(iterations=1)

linux = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def speed(name: str, *seconds: float, **values) -> Speed:
    return Speed(name, (64, 64), seconds=seconds, **values)


def test_ratio_is_over_paired_iterations():
    # The machine slows down tenfold after the first iteration, and the ratio stays 0.5.
    ours, theirs = speed('ours', 1.0, 10.0, 12.0), speed('theirs', 2.0, 20.0, 24.0)
    assert [ours.ratio(theirs, q) for q in (0.5, 0.1, 0.9)] == [0.5, 0.5, 0.5]
    assert ours.quantile(0.5) == 10.0
    assert speed('ours', 1.0, 2.0, 3.0).ratio(speed('theirs', 1.0, 1.0, 1.0), 0.9) == pytest.approx(2.8)


def test_median_is_stable_if_its_interval_is_narrow():
    noisy = (1.0, 1.1, 0.9, 1.05, 0.95)
    assert speed('few', 1.0, 1.0, 1.0, 1.0).margin is None
    assert not speed('few', 1.0, 1.0, 1.0, 1.0).stable
    assert speed('noisy', *noisy).margin == pytest.approx(1.57 * 0.1 / 5**0.5)
    assert not speed('noisy', *noisy).stable
    assert speed('noisy, often', *noisy * 20).stable


def test_share_of_peak_counts_a_training_step_three_times():
    values = dict(macs=10**9, machine_flops=4e9)
    assert speed('net', 1.0, **values).share_of_peak == 0.5
    assert speed('net', 1.0, settings=Settings(train=True), **values).share_of_peak == 1.5
    assert speed('net', 0.5, settings=Settings(batch_size=4)).images_per_second == 8


def test_growth_exponent_is_fitted_over_all_known_sizes():
    pixels = [100, 200, 400, 800]
    assert growth_exponent(pixels, [3 * p**1.5 for p in pixels]) == pytest.approx(1.5)
    assert growth_exponent(pixels, [1.0, None, None, 64.0]) == pytest.approx(2)
    assert growth_exponent(pixels, [1.0, None, None, None]) is None
    assert growth_exponent([100, 200], [0, 2]) is None
    assert growth_exponent([100, 100], [1, 2]) is None
    rows = [Speed('net', (side, side), seconds=(side**3,), inference_mib=side**2) for side in (16, 32, 64)]
    rows += [Speed('lost', (side, side), error='out of memory') for side in (16, 32, 64)]
    assert growth(rows) == [
        'net: time grows as pixels^1.50, memory grows as pixels^1.00',
        'lost: fewer than two sizes were measured',
    ]


@pytest.mark.parametrize('name', ['botnet_50', 'ceit_t', 'ceit_t:window_size=4'])
def test_plain_layers_compute_the_same_function(name):
    ours, plain = (create_network(prefix + name).double().eval() for prefix in ('', 'plain:'))
    for parameter_name, parameter in ours.named_parameters():
        if parameter_name.endswith('bn3.weight'):
            nn.init.ones_(parameter)
        elif '.rel_' in parameter_name:
            nn.init.normal_(parameter)
    plain.load_state_dict(ours.state_dict())
    image = torch.randn(1, 3, 97, 160, dtype=torch.double)
    with torch.inference_mode():
        torch.testing.assert_close(plain(image), ours(image))


def test_names_may_have_options():
    network = create_network('deit_t:window_size=14,pyramid=None')
    assert network.pyramid is None
    assert network.blocks[0].attn.window_size == 14
    with pytest.raises(ValueError, match=r"options of deit_t: expected NAME=VALUE,\.\.\., got 'window_size'"):
        create_network('deit_t:window_size')


def test_unknown_name_is_an_error_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'convformer_t' is neither one of .*conv2former_t.* nor a model of timm"):
        create_network('convformer_t')


class Recorder(nn.Module):
    """One convolution that records its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=4)
        self.calls: list[tuple] = []

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.conv(x)
        self.calls.append((tuple(x.shape), self.training, torch.is_grad_enabled(), maps.dtype))
        return (maps,)


@pytest.mark.parametrize('train', [False, True])
def test_networks_run_in_turn_in_the_right_mode(train):
    lines: list[str] = []
    networks = [Recorder(), 'tiny_moat_0']
    settings = Settings(batch_size=2, dtype='bf16', train=train, iterations=2, seconds=3600)
    rows = compare(networks, (64, 96), settings, lines.append)
    assert [row.name for row in rows] == ['Recorder', 'tiny_moat_0']
    assert all(len(row.seconds) == 2 and min(row.seconds) > 0 and row.error is None for row in rows)
    timed = [line.split()[1].rstrip(':') for line in lines if not line.startswith('warm-up')]
    assert timed == ['Recorder', 'tiny_moat_0'] * 2
    # One call to count, on one image; warm-up and iterations; then one for the memory of each step, and one in front of
    # it whenever the mode changes.
    shape = (2, 3, 64, 96)
    assert networks[0].calls[0][:3] == ((1, 3, 64, 96), False, False)
    assert networks[0].calls[1:6] == [(shape, train, train, torch.bfloat16)] * 5
    steps = (False, False, True, True) if train else (False, True, True)
    assert networks[0].calls[6:] == [(shape, on, on, torch.bfloat16) for on in steps]
    assert networks[0].conv.weight.grad is None
    assert rows[0].macs == 2 * 8 * 27 * 16 * 24
    if rows[0].inference_mib is not None:
        assert 0 < rows[1].inference_mib < rows[1].train_mib


def test_iterations_stop_when_medians_are_stable():
    rows = compare([Recorder(), Recorder()], (256, 256), Settings(iterations=60, train_memory=False))
    count = len(rows[0].seconds)
    assert count == len(rows[1].seconds)
    assert (all(row.stable for row in rows) and count >= 5) or count == 60
    before = [Speed(row.name, row.size, seconds=row.seconds[:-1]) for row in rows]
    assert not all(row.stable for row in before)


class Uncountable(Recorder):
    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(m + torch.linalg.inv(torch.eye(2)).sum() for m in super().forward(x))


def test_network_with_unknown_operator_is_timed_without_macs():
    row = profile(Uncountable(), (64, 64), ONCE)
    assert len(row.seconds) == 1
    assert row.macs is None
    assert row.share_of_peak is None


def test_time_limit_applies_after_five_iterations():
    rows = compare(['tiny_moat_0'], (64, 64), Settings(seconds=0, train_memory=False))
    assert len(rows[0].seconds) == 5


def test_compiled_networks_are_counted():
    network = create_backbone('moat_0', arch=tiny_arch('moat_0'))
    row = profile(network, (64, 64), Settings(compiler='aot_eager', iterations=1, train_memory=False))
    assert len(row.seconds) == 1
    assert row.macs == profile(network, (64, 64), Settings(iterations=1, train_memory=False)).macs


def test_invalid_settings_are_errors():
    with pytest.raises(ValueError, match='fuse folds layers for inference, and train times training: choose one'):
        Settings(fuse=True, train=True)
    with pytest.raises(ValueError, match='expected one iteration and image or more, got 0 and 1'):
        Settings(iterations=0)


@linux
@pytest.mark.parametrize('count', [1, 2])
def test_peak_memory_is_that_of_one_step(count):
    held = torch.ones(2**24)  # 64 MiB, before
    peak = peak_memory(lambda: [torch.ones(2**24) for _ in range(count)], 'cpu')
    assert peak == pytest.approx(64 * count, abs=8)
    assert held.all()


def test_matrix_product_and_its_operations():
    product = MatrixProduct(torch.float32, 'cpu')
    side = round((product.operations / 2) ** (1 / 3))
    factor = product._factor
    assert factor.shape == (side, side)
    assert product.library in product._products
    for multiply in product._products.values():
        result = multiply()
        result = product._product if result is None else torch.as_tensor(result)
        torch.testing.assert_close(result, factor @ factor, rtol=1e-4, atol=1e-2)
        product._product.zero_()


def test_peak_is_that_of_the_fastest_library(monkeypatch):
    monkeypatch.setattr(MatrixProduct, '_candidates', lambda self: [('slow', lambda: time.sleep(0.01)), ('fast', int)])
    assert MatrixProduct(torch.float32, 'cpu').library == 'fast'


@linux
def test_allocation_beyond_the_available_memory_raises():
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with (
        within_available_memory('cpu'),
        pytest.raises(RuntimeError) as error,
    ):
        torch.empty(available_memory() + 2**30, dtype=torch.uint8)
    assert 'out of memory' in out_of_memory(error.value)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_out_of_memory_errors_are_recognised():
    assert out_of_memory(RuntimeError('mat1 and mat2 shapes cannot be multiplied')) is None
    assert out_of_memory(MemoryError()) == 'out of memory (MemoryError)'
    cuda = torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has')
    assert out_of_memory(cuda) == 'out of memory, 20.00 MiB more wanted'


# The second network's maps do not fit into memory; the third fits in inference but not in training.
_SHORT = """
import re, resource
from pathlib import Path

import torch
from torch import nn

from hybrid_backbones.profiling.speed import compare
from hybrid_backbones.profiling.speed.records import Settings, table


class Wide(nn.Sequential):
    def forward(self, x):
        return (super().forward(x),)


def wide(channels, depth):
    layers = [nn.Conv2d(channels, channels, 1) for _ in range(depth)]
    return Wide(nn.Conv2d(3, channels, 1), *layers)


networks = [wide(4, 1), wide(2000, 1), wide(32, 24), wide(8, 1)]
compare(networks[:1], (256, 256), Settings(iterations=1))  # libraries allocate their buffers
held = int(re.search(r'VmData:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 160 * 2**20, resource.RLIM_INFINITY))
rows = compare(networks, (256, 256), Settings(iterations=2))
for row in rows:
    print(len(row.seconds), row.inference_mib is not None, row.train_mib is not None, row.error)
print(table(rows)[1])
"""


@linux
def test_network_that_runs_out_of_memory_is_a_row_and_the_others_continue():
    done = subprocess.run([sys.executable, '-c', _SHORT], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[3] == '2 True True None'
    assert lines[1] == '0 False False inference: out of memory, 500 MiB more wanted'
    assert lines[2] == '2 True False training step: out of memory, 8 MiB more wanted'
    cells = ast.literal_eval(lines[4])
    assert cells[2:] == ['-'] * 8 + ['inference: out of memory, 500 MiB more wanted']


@pytest.mark.parametrize(
    'name', [f'{DETECTOR}+tiny_moat_0', f'{SEGMENTOR}+deit_t:window_size=4'], ids=['detector', 'segmentor']
)
def test_whole_models_run_from_arrays_to_predictions_at_the_given_size(name):
    model = WholeModel(name, (96, 160)).eval()
    seen = []
    model.model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    images = model.images(2)
    assert images[0].shape == (96, 160, 3)
    assert images[0].dtype == np.uint8
    with torch.no_grad():
        predictions = model(images)
    assert seen[0].shape == (2, 3, 96, 160)
    assert seen[0].mean().abs() < 1  # normalised
    assert len(predictions) == 2
    if model.segmentor:
        assert predictions[0].pred_sem_seg.shape == (96, 160)
    else:
        # Although untrained, it predicts as many objects as the config allows.
        found = predictions[0].pred_instances
        assert len(found) == model.model.roi_head.test_cfg.max_per_img
        assert found.masks.shape == (len(found), 96, 160)
    model.train().loss(2).backward()
    assert seen[-1].shape == (2, 3, 96, 160)
    reached = [parameter.grad is not None for parameter in model.model.backbone.parameters()]
    assert all(reached)


def test_whole_models_are_measured():
    row = profile(f'{DETECTOR}+tiny_moat_0', (64, 64), ONCE)
    assert row.error is None
    assert row.macs > profile('tiny_moat_0', (64, 64), ONCE).macs > 0
    assert row.inference_mib is None or row.train_mib > 0


def test_batch_norm_of_one_pixel_is_an_error_in_the_row():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    row = profile(pooled, (64, 64), ONCE)
    assert len(row.seconds) == 1
    assert row.error == 'training step: BatchNorm of a map of one pixel cannot train on a batch of one image'


def test_command_prints_and_writes_a_row_per_network_and_size(tmp_path):
    file = tmp_path / 'rows.json'
    command = [sys.executable, str(TOOL), 'tiny_moat_0', 'timm:resnet10t', '--sizes', '64', '64x128']
    done = subprocess.run(
        [*command, '--iterations', '1', '--json', str(file)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(r['name'], r['size']) for r in records] == [
        (name, size) for size in ([64, 64], [64, 128]) for name in ('tiny_moat_0', 'timm:resnet10t')
    ]
    for record in records:
        assert record['over'] == 'timm:resnet10t'
        assert record['macs'] > 0
        assert record['share_of_peak'] == pytest.approx(
            2 * record['macs'] / record['median_s'] / record['machine_flops']
        )
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if ' 64x64 ' in line or ' 64x128 ' in line]
    assert [row[:2] for row in rows] == [[r['name'], 'x'.join(map(str, r['size']))] for r in records]
    assert [float(row[2]) for row in rows] == [pytest.approx(r['median_s'], abs=6e-4) for r in records]
    assert rows[1][8:10] == ['1.00', '(1.00-1.00)']
    assert lines[-2].startswith('tiny_moat_0: time grows as pixels^')


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        (['--size', '64', '64'], 'unrecognized arguments: --size'),
        (['--sizes', '64x0'], "expected HEIGHTxWIDTH or SIDE in pixels, as 800x1344, got '64x0'"),
    ],
)
def test_ambiguous_sizes_are_errors(run_tool, arguments, problem):
    status, _, errors = run_tool('benchmark_speed', 'cvt_13', *arguments)
    assert status == 2
    assert problem in errors


def test_unknown_values_are_dashes_in_the_table():
    (row,) = table([speed('net', 1.0, 1.0)])
    assert row[:8] == ['net', '64x64', '1.000', '1.000', '1.000', '1.00', '-', '-']
    assert row[8:] == ['1.00 (1.00-1.00)', '-', 'not stable: 2 iterations, too few for an interval']
