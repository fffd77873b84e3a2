"""The loss is the paper's, the teacher is left as it is, and students learn from it."""

import pickle
from copy import deepcopy

import pytest
import torch
from engine.models import make_runner
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from hybrid_backbones.engine.checkpoint import latest_checkpoint
from hybrid_backbones.engine.distillation import DistillationLoss

CLASSES = 4


def make_teacher(classes: int = CLASSES) -> nn.Sequential:
    """Its BatchNorm tells training from evaluation."""
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 6 * 6, classes))
    teacher[1].running_mean.normal_()
    teacher[1].running_var.uniform_(0.5, 2)
    return teacher


def make_student() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES))


def make_labels(mixup: bool, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(6, CLASSES, dtype=dtype).softmax(1) if mixup else torch.randint(CLASSES, (6,))


def written_out(class_logits, logits, target, labels, kind, alpha, tau) -> Tensor:
    """Equations (2) and (3) of the paper without PyTorch's losses."""
    truth = labels if labels.ndim == 2 else torch.eye(CLASSES, dtype=logits.dtype)[labels]
    from_labels = -(truth * class_logits.softmax(1).log()).sum(1).mean()
    if kind == 'hard':
        from_teacher = -logits.softmax(1).log()[range(len(logits)), target.argmax(1)].mean()
    else:
        p, q = (target / tau).softmax(1), (logits / tau).softmax(1)
        from_teacher = tau**2 * (p * (p / q).log()).sum(1).mean()
    return (1 - alpha) * from_labels + alpha * from_teacher


@pytest.mark.parametrize('mixup', [False, True])
@pytest.mark.parametrize('token', [False, True])
@pytest.mark.parametrize(('kind', 'alpha', 'tau'), [('hard', 0.5, 1), ('hard', 1, 3), ('soft', 0.1, 3), ('soft', 1, 1)])
def test_definition(kind, alpha, tau, token, mixup):
    teacher = make_teacher().double()
    images, labels = torch.randn(6, 3, 8, 8, dtype=torch.float64), make_labels(mixup, torch.float64)
    class_logits = logits = torch.randn(6, CLASSES, dtype=torch.float64)
    if token:
        logits = torch.randn(6, CLASSES, dtype=torch.float64)
    target = deepcopy(teacher).eval()(images)
    loss = DistillationLoss(teacher, kind=kind, alpha=alpha, tau=tau)
    torch.testing.assert_close(
        loss((class_logits, logits) if token else logits, labels, images),
        written_out(class_logits, logits, target, labels, kind, alpha, tau),
        rtol=1e-12,
        atol=0,
    )


def test_defaults():
    loss = DistillationLoss(make_teacher())
    assert (loss.kind, loss.alpha, loss.tau) == ('hard', 0.5, 1.0)


@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_without_the_teachers_share(kind):
    logits, labels, images = torch.randn(6, CLASSES), make_labels(False), torch.randn(6, 3, 8, 8)
    loss = DistillationLoss(make_teacher(), kind=kind, alpha=0)
    assert torch.equal(loss(logits, labels, images), nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_gradients(kind):
    student, teacher = make_student(), make_teacher()
    images = torch.randn(6, 3, 8, 8)
    DistillationLoss(teacher, kind=kind, alpha=1)(student(images), make_labels(False), images).backward()
    assert all(param.grad.abs().sum() > 0 for param in student.parameters())
    assert all(param.grad is None for param in teacher.parameters())


def test_teacher_stays_in_eval():
    teacher = make_teacher()
    loss = DistillationLoss(teacher)
    before = deepcopy(teacher.state_dict())
    images = torch.randn(6, 3, 8, 8)
    for change_mode in (loss.train, lambda: nn.ModuleList([teacher, loss]).train()):
        change_mode()
        loss(torch.randn(6, CLASSES), make_labels(False), images)
        assert loss.training
        assert not any(module.training for module in teacher.modules())
    torch.testing.assert_close(teacher.state_dict(), before, rtol=0, atol=0)


def test_not_in_checkpoints_or_optimizers():
    loss = DistillationLoss(make_teacher())
    assert not loss.state_dict()
    assert not list(loss.parameters())
    assert list(loss.modules()) == [loss]


def test_teacher_follows():
    model = nn.ModuleList([DistillationLoss(make_teacher())])
    teacher = model[0].teacher
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    assert model.double()[0](torch.randn(6, CLASSES), make_labels(False), images).isfinite()
    assert {value.dtype for value in teacher.state_dict().values()} == {torch.float64, torch.int64}
    model.to('meta')
    assert all(value.is_meta for value in teacher.state_dict().values())


@pytest.mark.parametrize('mixup', [False, True])
def test_low_precision(mixup):
    """Under autocast, or of logits that come in bf16, the loss is that of the same logits in float32."""
    student, teacher = make_student(), make_teacher().eval()
    images, labels = torch.randn(6, 3, 8, 8), make_labels(mixup)
    loss = DistillationLoss(teacher, kind='soft', tau=3)
    with torch.autocast('cpu', torch.bfloat16):
        logits, target = student(images), teacher(images)
        actual = loss(logits, labels, images)
    assert logits.dtype == target.dtype == torch.bfloat16
    expected = written_out(logits.float(), logits.float(), target.float(), labels, 'soft', 0.5, 3)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.bfloat16()(logits, labels, images.bfloat16()), expected, rtol=1e-2, atol=0)
    assert loss(logits, labels, images.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize('duplicate', [deepcopy, lambda loss: pickle.loads(pickle.dumps(loss))])
def test_copies(duplicate):
    loss = DistillationLoss(make_teacher(), kind='soft', alpha=0.7, tau=2)
    logits, labels, images = torch.randn(6, CLASSES), make_labels(False), torch.randn(6, 3, 8, 8)
    copy, expected = duplicate(loss), loss(logits, labels, images)
    loss.teacher[-1].weight.data.zero_()
    assert torch.equal(copy(logits, labels, images), expected)
    assert not copy.state_dict()


@pytest.mark.parametrize('teacher', ['timm:resnet10t', 'timm:resnet10t.c3_in1k', 'torchvision:squeezenet1_1'])
def test_built_from_config(teacher):
    loss = MODELS.build(dict(type='DistillationLoss', teacher=teacher, teacher_options=dict(num_classes=5)))
    student = torch.randn(2, 5, requires_grad=True)
    loss(student, torch.tensor([0, 4]), torch.randn(2, 3, 32, 32)).backward()
    assert student.grad.abs().sum() > 0
    assert not loss.teacher.training
    assert not loss.state_dict()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(kind='medium'), "unknown kind of distillation 'medium'; choose one of hard, soft"),
        (dict(alpha=-0.1), r'alpha .* set it in \[0, 1\], not -0.1'),
        (dict(alpha=1.1), r'alpha .* set it in \[0, 1\], not 1.1'),
        (dict(tau=0), 'tau .* set it above 0, not 0'),
        (dict(teacher='regnety_160'), "unknown teacher 'regnety_160'; give an nn.Module, or .* 'timm:regnety_160'"),
        (dict(teacher=dict(type='ResNet')), "unknown teacher {'type': 'ResNet'}; give an nn.Module, or"),
        (dict(teacher='timm:regnety160'), "unknown teacher 'timm:regnety160'; .* of timm, such as .*timm:regnety_160"),
        (dict(teacher='timm:resnet50.a9_in1k'), r"unknown teacher 'timm:resnet50\.a9_in1k'.*timm:resnet50\.a3_in1k"),
        (dict(teacher='torchvision:fcn_resnet50'), "unknown teacher 'torchvision:fcn_resnet50'.*torchvision:resnet50"),
        (dict(teacher='torchvision:'), "unknown teacher 'torchvision:'; .* of torchvision, such as .*:alexnet"),
        (dict(teacher_options=dict(pretrained=True)), "{'pretrained': True} are .* not for a built Sequential; remove"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        DistillationLoss(**{'teacher': make_teacher(), **options})


def test_other_classes():
    loss = DistillationLoss(make_teacher(classes=7))
    with pytest.raises(ValueError, match=r'teacher .* shape \(6, 7\), the student \(6, 4\): set the same num_classes'):
        loss(torch.randn(6, CLASSES), make_labels(False), torch.randn(6, 3, 8, 8))


def patterns() -> Tensor:
    """What an image of each class looks like, before noise."""
    return torch.randn(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(3))


class Patterns(Dataset):
    """Noisy images whose labels are certain."""

    metainfo: dict = {}

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict:
        noise = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))
        return dict(images=patterns()[index % CLASSES] + noise, labels=index % CLASSES)


class Student(BaseModel):
    """One head for the labels, and one for a teacher that contradicts them: it calls each class by another's name."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, CLASSES, bias=False))
        teacher[1].weight.data = patterns().roll(1, 0).flatten(1) / 20
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.ReLU())
        self.heads = nn.ModuleList([nn.Linear(16, CLASSES), nn.Linear(16, CLASSES)])
        self.loss = MODELS.build(dict(type='DistillationLoss', teacher=teacher, kind=kind))

    def forward(self, images: Tensor, labels: Tensor, mode: str = 'tensor') -> dict | tuple[Tensor, Tensor]:
        outputs = tuple(head(self.trunk(images)) for head in self.heads)
        return dict(loss=self.loss(outputs, labels, images)) if mode == 'loss' else outputs


@pytest.mark.parametrize('kind', ['hard', 'soft'])
def test_training(tmp_path, kind):
    MODELS.register_module(module=Student, force=True)
    DATASETS.register_module(module=Patterns, force=True)
    runner = make_runner(
        tmp_path,
        max_iters=30,
        checkpoint=dict(interval=30),
        model=dict(type='Student', kind=kind),
        train_dataloader=dict(
            batch_size=16,
            dataset=dict(type='Patterns'),
            sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
    )
    model, data = runner.model, Patterns()
    samples = default_collate([data[index] for index in range(len(data))])
    device = next(model.parameters()).device
    images, labels = (samples[key].to(device) for key in ('images', 'labels'))
    distillation = DistillationLoss(model.loss.teacher, kind=kind, alpha=1)
    weights = deepcopy(model.loss.teacher.state_dict())

    @torch.no_grad()
    def measure() -> tuple[float, float, float]:
        """The teacher's term, and how often the heads agree with labels and teacher."""
        outputs = class_logits, logits = model(images, labels)
        agrees = logits.argmax(1) == model.loss.teacher(images).argmax(1)
        right = class_logits.argmax(1) == labels
        return distillation(outputs, labels, images).item(), right.float().mean().item(), agrees.float().mean().item()

    before, _, unlearned = measure()
    runner.train()
    after, accuracy, agreement = measure()
    assert after < before / 4
    assert unlearned < 0.6
    assert accuracy > 0.9
    assert agreement > 0.9
    torch.testing.assert_close(model.loss.teacher.state_dict(), weights, rtol=0, atol=0)

    saved = torch.load(latest_checkpoint(tmp_path), weights_only=False)
    assert {name.split('.')[0] for name in saved['state_dict']} == {'trunk', 'heads'}
    assert sum(len(group['params']) for group in saved['optimizer']['param_groups']) == 6
