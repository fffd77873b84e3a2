"""A few iterations write a file that everything takes; a resumed run writes the same one; mistakes are named."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from datasets.test_image_folder import write_images
from safetensors.torch import load_file

from hybrid_backbones import create_backbone, create_classifier
from hybrid_backbones.datasets.world import CLASSES, ShapesWorld
from hybrid_backbones.engine import pretraining, pretraining_config
from hybrid_backbones.engine.pretraining import Length, pretrain
from hybrid_backbones.engine.pretraining_config import Settings
from hybrid_backbones.engine.pretraining_file import load_pretrained_classifier, read_facts
from hybrid_backbones.engine.pretraining_model import PretrainedClassifier

TINY = dict(arch=dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), kernel_size=3), layer_scale_init=1.0)
SMALL = dict(size=32, batch_size=8, workers=0)


@pytest.fixture(scope='module', autouse=True)
def few_images_to_validate_on() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining_config, 'WORLD_VAL_IMAGES', 64)
        yield


def run(
    work_dir: Path,
    data: object = 'shapes-world',
    length: Length = Length(iterations=10),  # noqa: B008
    name: str = 'conv2former_n',
    out: str | None = None,
    resume: bool = False,
    **settings,
) -> Path:
    settings = dict(options=TINY, **SMALL) | settings
    return pretrain(Settings(name, str(data), **settings), length, out, str(work_dir), resume)


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp('unbroken'))


def test_the_file_fills_backbone_and_classifier(unbroken):
    backbone = create_backbone('conv2former_n', checkpoint=unbroken, **TINY)
    report = backbone.load_report
    assert report.matched > 0 and all(name.startswith('out_norms.') for name in report.initial)
    classifier = create_classifier('conv2former_n', len(CLASSES), checkpoint=unbroken, **TINY).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(classifier(images), load_pretrained_classifier(unbroken).eval()(images))


def test_the_file_says_what_it_comes_from(unbroken):
    facts = read_facts(unbroken)
    assert facts['classes'] == list(CLASSES) and facts['versions'].keys() == {'hybrid_backbones', 'torch', 'timm'}
    assert (facts['backbone'], facts['data'], facts['seed'], facts['iterations']) == (
        'conv2former_n',
        'shapes-world',
        0,
        10,
    )


def test_top1_is_that_of_the_weights_in_the_file(unbroken):
    model = PretrainedClassifier('conv2former_n', len(CLASSES), TINY).eval()
    model.classifier.load_state_dict(load_file(unbroken))
    items = [ShapesWorld(64, 32, split='val')[index] for index in range(64)]
    batch = dict(inputs=torch.stack([i['inputs'] for i in items]), labels=torch.tensor([i['labels'] for i in items]))
    with torch.no_grad():
        guesses = model.val_step(batch)
    correct = sum(guess == label for guess, label in zip(guesses, batch['labels'].tolist(), strict=True))
    assert read_facts(unbroken)['top1'] == pytest.approx(100 * correct / 64)


def test_a_resumed_run_writes_the_same_weights(unbroken, tmp_path, monkeypatch):
    whole, calls = PretrainedClassifier._loss, []

    def killed(model, *batch):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return whole(model, *batch)

    monkeypatch.setattr(PretrainedClassifier, '_loss', killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert not list(tmp_path.glob('*.safetensors'))
    # It keeps its length, whatever is asked for now.
    state = load_file(run(tmp_path, length=Length(minutes=60), resume=True))
    assert len(calls) == 7 + 4
    for key, value in load_file(unbroken).items():
        assert torch.equal(value, state[key]), key
    with pytest.raises(ValueError, match=r'started with another train_dataloader.*choose another --work-dir'):
        run(tmp_path, size=64, resume=True)


def test_minutes_set_the_length_of_a_complete_schedule(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, '_MEASURED_SECONDS', 0.3)
    monkeypatch.setattr(pretraining, 'MIN_ITERATIONS', 3)
    facts = read_facts(run(tmp_path, length=Length(minutes=0.03)))
    assert facts['iterations'] >= 3
    checkpoint = torch.load(next(tmp_path.glob('iter_*.pth')), weights_only=False)
    assert checkpoint['meta']['iter'] == facts['iterations']
    assert checkpoint['optimizer']['param_groups'][0]['lr'] < 1e-3 / 100
    with pytest.raises(ValueError, match=r'iterations of .* s here, and fewer than 3 teach nothing'):
        run(tmp_path, length=Length(minutes=1e-5))


def test_a_folder_and_a_teacher(unbroken, tmp_path):
    """Two classes of different brightness, mixed and augmented, taught by an earlier run."""
    data = write_images(tmp_path / 'images', 'ab', 'ab', count=6)
    teacher = run(tmp_path / 'teacher', data, length=Length(epochs=4), lr=3e-3)
    facts = read_facts(teacher)
    assert facts['classes'] == ['a', 'b'] and facts['iterations'] == 6 and facts['data'] == 'images'
    student = run(tmp_path / 'student', data, teacher=str(teacher))
    assert read_facts(student)['teacher'] == str(teacher)
    with pytest.raises(ValueError, match=r'knows other classes than .*, those of shapes-world'):
        run(tmp_path / 'student', data, teacher=str(unbroken))


def test_a_teacher_changes_what_is_learned(unbroken, tmp_path):
    taught = load_file(run(tmp_path, teacher=str(unbroken)))
    assert any(not torch.equal(value, taught[key]) for key, value in load_file(unbroken).items())


@pytest.mark.parametrize(
    ('name', 'arguments', 'error', 'message'),
    [
        ('conv2former_x', {}, ValueError, 'unknown backbone'),
        ('conv2former_n', dict(data='nowhere'), FileNotFoundError, 'no folder nowhere/train; expected FOLDER/train'),
        ('conv2former_n', dict(length=Length(epochs=3)), ValueError, 'no end, and so no epochs'),
        ('conv2former_n', dict(batch_size=7), ValueError, 'mixed in pairs, give an even number'),
        ('conv2former_n', dict(out='weights.pth'), ValueError, r'ends in \.safetensors'),
        ('conv2former_n', dict(teacher='timm:resnet5'), ValueError, "unknown teacher 'timm:resnet5'"),
        ('conv2former_n', dict(teacher='missing.safetensors'), FileNotFoundError, 'no file missing'),
        (
            'deit_t',
            dict(options=dict(distilled=True)),
            ValueError,
            'distillation token of deit_t learns from a teacher',
        ),
    ],
)
def test_mistakes(name, arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        run(tmp_path, **dict(name=name) | arguments)


@pytest.mark.parametrize('given', [{}, dict(minutes=1, iterations=3), dict(minutes=0), dict(epochs=-1)])
def test_length(given):
    with pytest.raises(ValueError, match='give one of minutes, epochs and iterations, above 0'):
        Length(**given)


def test_command(run_tool, tmp_path):
    arguments = ['tiny_moat_0', '--data', 'shapes-world', '--iterations', 2, '--size', 32, '--batch-size', 2]
    arguments += ['--workers', 0, '--lr', '1e-4', '--seed', 3, '--backbone-options', 'bn_momentum=0.1']
    arguments += ['--work-dir', tmp_path / 'run', '-o', tmp_path / 'weights.safetensors']
    status, _, _ = run_tool('pretrain', *arguments)
    assert status == 0
    facts = read_facts(tmp_path / 'weights.safetensors')
    assert facts.items() >= dict(backbone='tiny_moat_0', size=32, batch_size=2, lr=1e-4, seed=3, iterations=2).items()
    assert facts['options'] == dict(bn_momentum=0.1)
    assert create_backbone('tiny_moat_0', checkpoint=tmp_path / 'weights.safetensors').load_report.matched > 3_000_000


def test_command_names_mistakes(run_tool):
    status, _, _ = run_tool('pretrain', 'tiny_moat_0', '--data', 'nowhere', '--epochs', 2)
    assert status.startswith('no folder nowhere/train')
    status, _, errors = run_tool('pretrain', 'tiny_moat_0', '--data', 'nowhere')
    assert status == 2 and '--minutes --epochs --iterations is required' in errors
