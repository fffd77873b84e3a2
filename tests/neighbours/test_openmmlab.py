"""The configs of docs/neighbours.md: built and trained for a step, each where its library is installed."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

DOCS = Path(__file__).parents[2] / 'docs/neighbours.md'
BOXES = [[20.0, 20, 60, 70], [30, 10, 90, 80]]


def mmpretrain_batch() -> dict[str, Any]:
    from mmpretrain.structures import DataSample

    return dict(inputs=images(64, 64), data_samples=[DataSample().set_gt_label(label) for label in (0, 1)])


def mmrotate_batch() -> dict[str, Any]:
    from mmdet.structures import DetDataSample
    from mmrotate.structures import RotatedBoxes

    samples = [DetDataSample(metainfo=dict(img_shape=(128, 128), scale_factor=(1, 1))) for _ in range(2)]
    for sample in samples:
        boxes = RotatedBoxes(torch.tensor([[60.0, 50, 40, 20, 0.3], [50, 70, 80, 60, -0.4]]))
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        sample.ignored_instances = InstanceData(bboxes=RotatedBoxes(torch.empty(0, 5)))
    return dict(inputs=images(128, 128), data_samples=samples)


def mmpose_batch() -> dict[str, Any]:
    from mmpose.testing import get_packed_inputs

    return get_packed_inputs(
        2, img_shape=(256, 192), input_size=(192, 256), heatmap_size=(48, 64), with_heatmap=True, with_reg_label=False
    )


def mmyolo_batch() -> dict[str, Any]:
    labels = torch.tensor([[image, label, *box] for image in (0, 1) for label, box in enumerate(BOXES)])
    return dict(inputs=torch.stack(images(128, 128)), data_samples=dict(bboxes_labels=labels, img_metas=[{}, {}]))


def images(height: int, width: int) -> list[torch.Tensor]:
    return [*torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)]


@pytest.mark.parametrize('library', ['mmpretrain', 'mmrotate', 'mmpose', 'mmyolo'])
def test_the_documented_config_trains_a_step(library, tmp_path):
    pytest.importorskip(library)
    section = DOCS.read_text(encoding='utf-8').partition(f'### {library}\n')[2]
    config = tmp_path / 'config.py'
    config.write_text(re.search(r'```python\n(.*?)```', section, re.DOTALL)[1], encoding='utf-8')
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model).train()
    optimizer, untrained = torch.optim.SGD(model.parameters(), lr=1e-3), []
    parameters = [*model.backbone.named_parameters()]
    optimizer.register_step_pre_hook(
        lambda *_: untrained.extend(name for name, p in parameters if p.grad is None or not p.grad.any())
    )
    losses = model.train_step(globals()[f'{library}_batch'](), OptimWrapper(optimizer))
    assert not {name: value for name, value in losses.items() if not value.isfinite().all()}
    assert not untrained
    assert type(model.backbone).__module__.startswith('hybrid_backbones.')
