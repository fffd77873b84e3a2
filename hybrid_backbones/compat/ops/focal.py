"""Focal loss (arXiv 1708.02002) per element, by sigmoid or softmax, and its gradients.

With p the probability of a class: `-alpha (1 - p)^gamma log(p)` for the target's class; the sigmoid form adds
`-(1 - alpha) p^gamma log(1 - p)` for each of the others. mmcv reduces and multiplies by the incoming gradient.

`target` is `(n,)` int64. A target without a column (the background of mmdet, numbered `c`) is negative for every
class of the sigmoid form, with class weight 1; a negative target has no softmax loss. An empty `weight` means none.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .kernels import working_dtype

# Softmax probabilities are kept above this before their logarithm is taken: C's FLT_MIN, as in mmcv.
_TINY = torch.finfo(torch.float32).tiny


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Loss of logits `input` `(n, c)` into `output` `(n, c)`; `weight` `(c,)` or empty."""
    p, q, log_p, log_q = _sigmoid(input)
    positive = -alpha * q**gamma * log_p
    negative = -(1 - alpha) * p**gamma * log_q
    output.copy_(_select(positive, negative, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of `sigmoid_focal_loss_forward` by the logits, into `grad_input` `(n, c)`."""
    p, q, log_p, log_q = _sigmoid(input)
    positive = -alpha * q**gamma * (q - gamma * p * log_p)
    negative = -(1 - alpha) * p**gamma * (gamma * q * log_q - p)
    grad_input.copy_(_select(positive, negative, target, weight))


def softmax_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Loss into `output` `(n,)` of the probabilities `input` `(n, c)`, a softmax taken by the caller."""
    p = _of_target(input, target)
    loss = -alpha * (1 - p) ** gamma * p.clamp(min=_TINY).log()
    output.copy_(loss * _target_weight(loss, target, weight))


def softmax_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, buff: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of the loss by the logits behind the probabilities `input`, into `grad_input` `(n, c)`.

    `buff` `(n,)` receives the derivative by the target's logarithmic probability.
    """
    p = _of_target(input, target)
    log_p = p.clamp(min=_TINY).log()
    slope = alpha * (gamma * (1 - p) ** (gamma - 1) * p * log_p - (1 - p) ** gamma)
    slope = slope * _target_weight(slope, target, weight)
    buff.copy_(slope)
    hit = torch.zeros_like(input, dtype=slope.dtype).scatter_(1, target.clamp(min=0)[:, None], 1)
    grad_input.copy_(slope[:, None] * (hit - input.to(slope.dtype)))


def _sigmoid(logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p, 1 - p and their logarithms, all straight from the logits: exact where p rounds to 0 or 1.

    mmcv's CUDA kernel takes the logarithm of the rounded p, which makes 87 of a loss of 20.
    """
    logits = logits.to(working_dtype(logits))
    return logits.sigmoid(), (-logits).sigmoid(), F.logsigmoid(logits), F.logsigmoid(-logits)


def _select(positive: Tensor, negative: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Take `positive` in the target's column and `negative` elsewhere `(n, c)`, times the target's class weight."""
    classes = torch.arange(positive.shape[1], device=target.device)
    chosen = torch.where(target[:, None] == classes, positive, negative)
    if not weight.numel():
        return chosen
    known = (target >= 0) & (target < len(weight))
    return chosen * torch.where(known, weight[torch.where(known, target, 0)], 1).to(chosen)[:, None]


def _of_target(probabilities: Tensor, target: Tensor) -> Tensor:
    """The target's probability `(n,)`; of any class where the target is negative."""
    return probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0].to(working_dtype(probabilities))


def _target_weight(like: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The target's class weight `(n,)`, 0 where the target is negative."""
    kept = (target >= 0).to(like)
    return kept * weight[target.clamp(min=0)].to(like) if weight.numel() else kept
