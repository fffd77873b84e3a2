"""Two processes on CPUs, with the default backend (nccl) and SyncBN in the model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from engine.processes import run_forked
from mmengine.device import get_device
from mmengine.model import BaseModel
from mmengine.runner import Runner

import hybrid_backbones


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return dict(x=torch.randn(3, 4, 4))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.SyncBatchNorm(4))

    def forward(self, x, mode='loss'):
        y = self.layers(torch.stack(x))
        return dict(loss=(y * torch.arange(4).view(1, 4, 1, 1) - 1).square().mean())


def train(folder: str) -> dict[str, Any]:
    runner = Runner(
        model=Model(),
        work_dir=folder,
        train_dataloader=dict(batch_size=2, dataset=Noise(), sampler=dict(type='DefaultSampler', shuffle=True)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        launcher='pytorch',
    )
    runner.train()
    norm = runner.model.module.layers[1]
    return dict(
        weights=norm.weight.detach(),
        kind=type(norm).__name__,
        backend=torch.distributed.get_backend(),
        notes=sorted(hybrid_backbones.compat.applied),
    )


@pytest.mark.skipif(get_device() != 'cpu', reason='this machine has an accelerator')
def test_two_processes(tmp_path):
    one, two = run_forked(tmp_path, 2, train, str(tmp_path))
    assert torch.equal(one['weights'], two['weights'])
    assert not torch.equal(one['weights'], torch.ones(4))
    assert 'SyncBatchNorm' not in one['kind']
    assert one['backend'] == 'gloo'
    assert {'distributed', 'syncbn'} <= set(one['notes'])
    (log,) = (path for path in Path(tmp_path).glob('*/*.log') if 'rank1' not in path.name)
    assert 'hybrid_backbones.compat, syncbn: SyncBN needs GPUs' in log.read_text()
