"""Backbones inside MMEngine's FullyShardedDataParallel, as the first of two processes: prints errors as JSON."""

import json
import sys

import torch
import torch.distributed as dist
from backbones.test_contract import create
from mmengine.model.wrappers import MMFullyShardedDataParallel
from null_cuda.device import leave_out_what_it_lacks
from torch import Tensor, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

import hybrid_backbones.engine  # noqa: F401  (registers the policy)


class Model(nn.Module):
    """A backbone as a part of a detector."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        return sum(m.float().mean() for m in self.backbone(x))


def error_of(name: str) -> str | None:
    image = torch.zeros(2, 3, 64, 64, device='cuda')
    try:
        model = MMFullyShardedDataParallel(
            Model(create(name)).cuda(), auto_wrap_policy='wrap_backbone_blocks', device_id=0
        )
        for training in (True, False):
            model.train(training)
            model(image).backward()
        with torch.no_grad():
            model(image)
    except Exception as error:
        return f'{type(error).__name__}: {error}'
    return None


def main() -> None:
    leave_out_what_it_lacks()
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=2)
    print(json.dumps({name: error_of(name) for name in sys.argv[1:]}))


if __name__ == '__main__':
    main()
