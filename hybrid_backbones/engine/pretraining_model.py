"""A classifier of this package as a model of MMEngine: normalised images, timm's mixing of images, loss, top-1."""

from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import METRICS, MODELS
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from ..backbones.factory import create_classifier
from .distillation import DistillationLoss
from .pretraining_file import is_pretrained_file, load_pretrained_classifier


class _Normalise(BaseDataPreprocessor):
    """Images (N, 3, H, W) uint8 RGB to what the network was published for; labels as they are."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer('mean', torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, data: dict[str, Tensor], training: bool = False) -> dict[str, Tensor]:
        data = self.cast_data(data)
        return dict(data, inputs=(data['inputs'].float() - self.mean) / self.std)


@MODELS.register_module()
class PretrainedClassifier(BaseModel):
    """A classifier that learns from labels, and from a teacher if there is one.

    Args:
        name: One of :func:`hybrid_backbones.list_backbones`.
        num_classes: Classes of the head.
        options: The backbone's options.
        mixing: Arguments of :class:`timm.data.Mixup`, which mixes images and smooths labels.
        teacher: `timm:NAME` or `torchvision:NAME` with its published weights, or a file that pretraining wrote; None
            to learn from labels alone.

    Raises:
        ValueError: Unknown name or teacher, or a distillation token without a teacher.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        options: dict[str, Any] | None = None,
        mixing: dict[str, Any] | None = None,
        teacher: str | None = None,
    ) -> None:
        classifier = create_classifier(name, num_classes, **(options or {}))
        super().__init__(_Normalise(classifier.backbone.image_mean, classifier.backbone.image_std))
        if hasattr(classifier.head, 'head_dist') and teacher is None:
            raise ValueError(f'the distillation token of {name} learns from a teacher; give one, or distilled=False')
        self.classifier = classifier
        self.mix = Mixup(num_classes=num_classes, **(mixing or {}))
        self.loss = _build_loss(teacher)

    def forward(self, inputs: Tensor, labels: Tensor, mode: str = 'tensor') -> Any:
        """Logits; with `mode='loss'` a dict of the loss, with `mode='predict'` a list of class indices."""
        if mode == 'loss':
            return dict(loss=self._loss(inputs, labels))
        logits = self.classifier(inputs)
        return logits.argmax(1).tolist() if mode == 'predict' else logits

    def _loss(self, images: Tensor, labels: Tensor) -> Tensor:
        images, targets = self.mix(images, labels)
        outputs = self.classifier(images)
        if isinstance(self.loss, DistillationLoss):
            return self.loss(outputs, targets, images)
        return self.loss(outputs.float(), targets)


def _build_loss(teacher: str | None) -> nn.Module:
    if teacher is None:
        return SoftTargetCrossEntropy()
    if is_pretrained_file(teacher):
        return DistillationLoss(load_pretrained_classifier(teacher))
    weights = dict(weights='DEFAULT') if teacher.startswith('torchvision:') else dict(pretrained=True)
    return DistillationLoss(teacher, weights)


@METRICS.register_module()
class Top1(BaseMetric):
    """Images whose class is the one predicted, in percent."""

    def process(self, data_batch: dict[str, Tensor], data_samples: list[int]) -> None:
        self.results += [
            label == guess for label, guess in zip(data_batch['labels'].tolist(), data_samples, strict=True)
        ]

    def compute_metrics(self, results: list[bool]) -> dict[str, float]:
        return dict(top1=100 * sum(results) / len(results))
