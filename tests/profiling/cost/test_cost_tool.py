"""The command prints the costs that the package counts."""

import json

import pytest

from hybrid_backbones.profiling.cost import backbone_cost


def test_table_has_textbook_macs_if_they_differ(run_tool):
    status, printed, errors = run_tool('cost', 'convit_t', 'timm:resnet18', '--size', 64, 96, '--by-operator')
    assert status == 0, errors
    title, header, ours, *lines = printed.splitlines()
    assert 'MACs, not FLOPs (1 MAC = 2 FLOPs)' in title
    assert header.split() == ['network', 'size', 'params', 'M', 'MACs', 'G', 'textbook', 'G', 'activations', 'M']
    cost = backbone_cost('convit_t', (64, 96))
    assert ours.split()[:2] == ['convit_t', '64x96']
    assert ours.split()[3:5] == [f'{cost.macs / 1e9:.4f}', f'{cost.textbook_macs / 1e9:.4f}']
    assert 'aten.scaled_dot_product_attention' in [line.split()[0] for line in lines]


def test_json_of_a_config_with_another_backbone(run_tool):
    path = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    status, printed, errors = run_tool('cost', '--config', path, '--backbone', 'tiny_moat_0', '--json')
    assert status == 0, errors
    cost = json.loads(printed)[f'{path} tiny_moat_0']
    assert cost['size'] == [800, 1280]
    assert cost['macs'] == sum(cost['by_operator'].values()) > backbone_cost('tiny_moat_0', (800, 1280)).macs


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['convit_x'], "'convit_x' is neither one of"),
        (['--backbone', 'deit_t'], 'give backbones by name'),
    ],
)
def test_errors_are_one_line(run_tool, arguments, message):
    status, _, errors = run_tool('cost', *arguments)
    assert status and message in (status if isinstance(status, str) else errors.splitlines()[-1])
