"""Knowledge distillation from a fixed teacher: DeiT (arXiv 2012.12877), section 3.

Official code: facebookresearch/deit, `losses.py` (Apache-2.0). Deliberate differences from it:

- Soft distillation is averaged over the batch, as in the paper's equation (2) and Hinton et al. (arXiv 1503.02531). The
  official code divides by the number of logits, batch x classes ("the legacy PyTorch behavior", its issue 61), so that
  the same alpha weighs the teacher 1000 times less on ImageNet.
- A student without a distillation token is taught through its class logits, where the official code refuses it.
- Labels may be class indices or probabilities; the official code is handed a criterion for either.
"""

from difflib import get_close_matches

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ('hard', 'soft')


def build_teacher(teacher: str, **options) -> nn.Module:
    """A classifier by the name that timm or torchvision has for it: `'timm:regnety_160'`, `'torchvision:resnet50'`.

    Args:
        teacher: Library and name. timm's may end in the tag of published weights, as in `'timm:resnet50.a1_in1k'`.
        **options: For `timm.create_model` or `torchvision.models.get_model`.

    Raises:
        ValueError: Unknown library, or a name that it does not list.
    """
    library, _, name = str(teacher).partition(':')
    # Imported at use: both take seconds, and most runs distil nothing.
    if library == 'timm':
        import timm

        names, create = timm.list_models() + timm.list_models(pretrained=True), timm.create_model
    elif library == 'torchvision':
        from torchvision import models

        names, create = models.list_models(models), models.get_model
    else:
        raise ValueError(
            f'unknown teacher {teacher!r}; give an nn.Module, or the library and the name of a model: '
            "'timm:regnety_160' or 'torchvision:resnet50'"
        )
    if name not in names:
        similar = ', '.join(f'{library}:{known}' for known in get_close_matches(name, names) or names[:3])
        raise ValueError(
            f'unknown teacher {teacher!r}; choose a classifier of list_models() of {library}, such as {similar}'
        )
    return create(name, **options)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@MODELS.register_module()
class DistillationLoss(nn.Module):
    """Loss of a student that learns from labels and from a teacher.

    - hard, equation (3): `(1 - alpha) * CE(Z_class, y) + alpha * CE(Z_dist, argmax Z_teacher)`
    - soft, equation (2): `(1 - alpha) * CE(Z_class, y) + alpha * tau**2 * KL(p_teacher || p_dist)`, where
      `p = softmax(Z / tau)`, averaged over the batch

    The teacher moves and changes its dtype with the loss, but is no submodule: neither checkpoints nor optimizers carry
    it. It sees the images that the student sees, augmented and normalised alike.

    Args:
        teacher: Images (N, 3, H, W) to logits (N, classes), or a name, see :func:`build_teacher`.
        teacher_options: Options of a teacher given by name. Without `dict(pretrained=True)` for timm or
            `dict(weights='DEFAULT')` for torchvision its weights are random.
        kind: `'hard'` or `'soft'`.
        alpha: Share of the teacher in the loss, in [0, 1].
        tau: Temperature of soft distillation, above 0.

    Raises:
        ValueError: An argument out of its range, an unknown teacher, or options for one that is built already.
    """

    def __init__(
        self,
        teacher: nn.Module | str,
        teacher_options: dict | None = None,
        kind: str = 'hard',
        alpha: float = 0.5,
        tau: float = 1.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f'unknown kind of distillation {kind!r}; choose one of {", ".join(KINDS)}')
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha is the share of the teacher in the loss: set it in [0, 1], not {alpha}')
        if not tau > 0:
            raise ValueError(f'tau divides the logits: set it above 0, not {tau}')
        if not isinstance(teacher, nn.Module):
            teacher = build_teacher(teacher, **(teacher_options or {}))
        elif teacher_options:
            raise ValueError(
                f'teacher_options {teacher_options} are for a teacher given by name, not for a built '
                f'{type(teacher).__name__}; remove them'
            )
        self.kind = kind
        self.alpha = alpha
        self.tau = tau
        # Past nn.Module's __setattr__, which would make it a submodule.
        self.__dict__['teacher'] = teacher.eval()

    def _apply(self, *args, **kwargs) -> 'DistillationLoss':
        self.teacher._apply(*args, **kwargs)
        return super()._apply(*args, **kwargs)

    def train(self, mode: bool = True) -> 'DistillationLoss':
        """As of any module; the teacher stays in eval mode, even where it is also part of a model that trains."""
        self.teacher.eval()
        return super().train(mode)

    def forward(self, outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor, images: Tensor) -> Tensor:
        """Scalar loss, in float32 or the logits' dtype if that is more precise.

        Args:
            outputs: Logits (N, classes), or class logits and distillation logits.
            labels: Class indices (N,), or probabilities (N, classes), as of mixup.
            images: (N, 3, H, W), for the teacher.

        Raises:
            ValueError: The teacher knows another number of classes than the student.
        """
        class_logits, logits = map(_precise, (outputs, outputs) if isinstance(outputs, Tensor) else outputs)
        with torch.no_grad():
            target = _precise(self.teacher(images))
        if target.shape != logits.shape:
            raise ValueError(
                f'the teacher gives logits of shape {tuple(target.shape)}, the student {tuple(logits.shape)}: set the '
                'same num_classes in teacher_options and in the head of the student'
            )
        return (1 - self.alpha) * F.cross_entropy(class_logits, labels) + self.alpha * self._imitation(logits, target)

    def _imitation(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.kind == 'hard':
            return F.cross_entropy(logits, target.argmax(1))
        student, teacher = (F.log_softmax(value / self.tau, 1) for value in (logits, target))
        return self.tau**2 * F.kl_div(student, teacher, reduction='batchmean', log_target=True)
