"""The benchmark compares what it says it compares."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hybrid_backbones.transfer.speed import Speed, compare, create_network


def test_the_ratio_is_that_of_paired_iterations():
    # The machine slowed down by ten after the first iteration; each was half of the other all the same.
    ours, theirs = Speed('ours', (1.0, 10.0, 12.0), None), Speed('theirs', (2.0, 20.0, 24.0), None)
    assert ours.ratio(theirs) == 0.5
    assert ours.quantile(0.5) == 10.0


@pytest.mark.parametrize('name', ['botnet_50', 'ceit_t', 'ceit_t:window_size=4'])
def test_the_plain_network_is_the_same_function_laid_out_in_full(name):
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


def test_ours_take_options():
    network = create_network('deit_t:window_size=14,pyramid=None')
    assert network.pyramid is None
    assert network.blocks[0].attn.window_size == 14
    with pytest.raises(ValueError, match=r"options of deit_t: expected NAME=VALUE,\.\.\., got 'window_size'"):
        create_network('deit_t:window_size')


@pytest.mark.parametrize('train', [False, True])
def test_networks_run_in_turn_as_often_as_asked(train):
    lines: list[str] = []
    names = ['conv2former_n', 'timm:resnet10t']
    speeds = compare(names, (64, 64), train=train, iterations=2, progress=lines.append)
    assert [speed.name for speed in speeds] == names
    assert all(len(speed.seconds) == 2 and min(speed.seconds) > 0 for speed in speeds)
    assert [line.split()[1].rstrip(':') for line in lines if not line.startswith('warm-up')] == names * 2


def test_a_name_that_nothing_has_is_an_error_that_lists_ours():
    with pytest.raises(ValueError, match=r"'convformer_t' is neither one of .*conv2former_t.* nor a model of timm"):
        create_network('convformer_t')


def test_the_command_prints_a_row_for_each():
    tool = Path(__file__).parents[2] / 'tools' / 'benchmark_speed.py'
    command = [sys.executable, str(tool), 'tiny_moat_0', 'timm:resnet10t', '--size', '64', '64', '--iterations', '1']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[-2:]]
    assert [row[0] for row in rows] == ['tiny_moat_0', 'timm:resnet10t']
    assert rows[1][5] == '1.00'
