"""The command prints the costs that the package counts."""

import json
import subprocess
import sys
from pathlib import Path

from hybrid_backbones.profiling.cost import backbone_cost

TOOL = Path(__file__).parents[3] / 'tools' / 'cost.py'


def _run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(TOOL), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=TOOL.parents[1])


def test_table_has_textbook_macs_if_they_differ():
    done = _run('convit_t', 'timm:resnet18', '--size', '64', '96', '--by-operator')
    assert done.returncode == 0, done.stderr
    title, header, ours, *lines = done.stdout.splitlines()
    assert 'MACs, not FLOPs (1 MAC = 2 FLOPs)' in title
    assert header.split() == ['network', 'size', 'params', 'M', 'MACs', 'G', 'textbook', 'G', 'activations', 'M']
    cost = backbone_cost('convit_t', (64, 96))
    assert ours.split()[:2] == ['convit_t', '64x96']
    assert ours.split()[3:5] == [f'{cost.macs / 1e9:.4f}', f'{cost.textbook_macs / 1e9:.4f}']
    assert 'aten.scaled_dot_product_attention' in [line.split()[0] for line in lines]


def test_json_of_a_config_with_another_backbone():
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    done = _run('--config', path, '--backbone', 'tiny_moat_0', '--json')
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)[f'{path} tiny_moat_0']
    assert cost['size'] == [800, 1280]
    assert cost['macs'] == sum(cost['by_operator'].values()) > backbone_cost('tiny_moat_0', (800, 1280)).macs


def test_errors_are_one_line():
    for arguments, message in (
        (['convit_x'], "'convit_x' is neither one of"),
        (['--backbone', 'deit_t'], 'give backbones by name'),
    ):
        done = _run(*arguments)
        assert done.returncode != 0
        assert message in done.stderr.splitlines()[-1]
