"""How linear heads are trained on frozen features: DINOv3's optimiser and schedule, see :mod:`.segmentation`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

_WARM_UP = 1500 / 40_000
_START_FACTOR = 1e-6
_GRADIENT_NORM = 35.0


def fit(head: nn.Module, loss_of_step: Callable[[], Tensor], iterations: int) -> None:
    """Train `head` for `iterations`; `loss_of_step` draws a batch and returns its loss."""
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, iterations))
    for _ in range(iterations):
        loss = loss_of_step()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), _GRADIENT_NORM)
        optimizer.step()
        schedule.step()


def learning_rate_factor(step: int, iterations: int) -> float:
    """Share of the highest learning rate: a linear warm-up and a cosine."""
    warm_up = _WARM_UP * iterations
    if step < warm_up:
        return (1 - (1 - step / warm_up) * (1 - _START_FACTOR)) * (1 - step / iterations)
    return (1 + math.cos(math.pi * min(1.0, (step + 1) / iterations))) / 2


def train_linear(
    vectors: Tensor,
    outputs: int,
    loss: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    batch: int,
    seed: int,
) -> nn.Module:
    """Dropout, BatchNorm and a linear layer on vectors `(N, C)`, in eval mode.

    Args:
        vectors: What it is trained on.
        outputs: Number of them.
        loss: Of the outputs `(B, outputs)` for the vectors at the indices `(B,)`.
        iterations: Of training.
        batch: Vectors in one of them, at most.
        seed: Of initial weights and batches.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        linear = nn.Linear(vectors.shape[1], outputs)
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
        head = nn.Sequential(nn.Dropout(0.1), nn.BatchNorm1d(vectors.shape[1]), linear)

        def loss_of_step() -> Tensor:
            at = torch.randperm(len(vectors))[:batch]
            return loss(head(vectors[at]), at)

        fit(head, loss_of_step, iterations)
    return head.eval()
