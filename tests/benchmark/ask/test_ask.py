"""Questions as a user asks them, answered in words."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hybrid_backbones.benchmark.ask import ask, read_question, rungs
from hybrid_backbones.benchmark.ask.answer import answer
from hybrid_backbones.benchmark.ask.ladder import FILE
from hybrid_backbones.benchmark.ask.prior import Prior, prior
from hybrid_backbones.benchmark.ask.rungs import FrozenProbes, Score
from hybrid_backbones.benchmark.rows import ResultsError
from hybrid_backbones.benchmark.sweep.spec import SpecError

CONFIGS = Path(__file__).parents[3] / 'configs'
SPEC = """
tier: smoke
backbones: [{backbones}]
frameworks:
  - {{name: upernet, config: {configs}/upernet_conv2former_n_shapes.py, datasets: [{datasets}], size: [64, 64]}}
"""


def _spec(folder: Path, backbones: str, datasets: str = 'shapes') -> Path:
    path = folder / 'spec.yaml'
    path.write_text(SPEC.format(backbones=backbones, datasets=datasets, configs=CONFIGS))
    return path


def _scores(**values: float) -> dict[str, Score]:
    """Scores with the same noise from the images, and little noise of their own."""
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 0.05, 200)
    return {
        label: Score('', value, (value + shared + generator.normal(0, 0.01, 200)).tolist(), 40, 1.0)
        for label, value in values.items()
    }


def _text(scores: dict[str, Score], candidates: str) -> str:
    priors = {label: Prior(1, 1, None) for label in candidates}
    return answer(priors, scores, FrozenProbes(), 2.0, 30).text


def test_a_clear_answer_names_one():
    text = _text(_scores(a=0.5, b=0.3, c=0.2), 'abc')
    assert text.startswith('Of these 3: a. Certainty: a has the highest score in 100% of redraws of 40 images')
    assert text.endswith('Spent: 2.0 of 30 minutes.')


def test_rivals_are_named():
    assert 'a, or b, which is not distinguished from it' in _text(_scores(a=0.5, b=0.499, c=0.2), 'abc')


def test_equal_candidates_are_not_told_apart():
    text = _text(_scores(a=0.5, b=0.499), 'ab')
    assert 'cannot tell a from b' in text and 'more validation images; training them' in text


def test_too_little_time_is_no_answer():
    text = _text(_scores(a=0.5), 'ab')
    assert 'Of these 2, cannot tell: 1 measured' in text and 'more time' in text
    assert 'c not measured' in _text(_scores(a=0.5, b=0.2), 'abc')


@pytest.mark.parametrize(
    'backbones, datasets, message',
    [('cvt_13', 'shapes', 'at least 2 backbones .* got cvt_13'), ('cvt_13, deit_t', 'shapes, a', 'upernet on a, ')],
)
def test_unusable_specs_are_errors(tmp_path, backbones, datasets, message):
    with pytest.raises(SpecError, match=message):
        read_question(_spec(tmp_path, backbones, datasets), {}, tmp_path)


def test_the_command_reports_unusable_specs(tmp_path, run_tool):
    status, _, _ = run_tool('transfer', 'ask', _spec(tmp_path, 'cvt_13'), '--results', tmp_path)
    assert 'at least 2 backbones can be compared, got cvt_13' in status


def test_the_prior_quotes_the_authors_on_imagenet_1k(tmp_path):
    found = prior(read_question(_spec(tmp_path, 'timm_convnext_t, tiny_moat_0'), {}, tmp_path))
    assert found['timm_convnext_t'].published == 'mIoU 46.0 (upernet, ade20k, 160k)'
    assert 27e6 < found['timm_convnext_t'].parameters < 29e6


@pytest.fixture
def question(tmp_path: Path):
    found = read_question(_spec(tmp_path, 'tiny_moat_0, timm_efficientnet_lite0'), {}, tmp_path)
    found.cfg.merge_from_dict({'train_dataloader.dataset.indices': 4, 'val_dataloader.dataset.indices': 2})
    return found


def test_what_was_measured_is_not_measured_again(question, tmp_path, monkeypatch):
    monkeypatch.setattr(rungs, 'linear_probe', partial(rungs.linear_probe, iterations=2))
    lines: list[str] = []
    first = ask(question, tmp_path, minutes=10, report=lines.append)
    assert first.best in question.candidates and len(lines) == 4
    stored = json.loads((tmp_path / FILE).read_text())
    assert stored['answer']['text'] == first.text and stored['prior'].keys() == question.candidates.keys()

    def fail(*_: object) -> None:
        raise AssertionError('measured again')

    monkeypatch.setattr(FrozenProbes, 'score', fail)
    assert ask(question, tmp_path, minutes=10, report=lines.append).best == first.best


def test_no_time_gives_the_prior_and_cannot_tell(question, tmp_path):
    lines: list[str] = []
    found = ask(question, tmp_path, minutes=1e-9, report=lines.append)
    assert found.best is None and 'cannot tell: 0 measured' in found.text
    assert 'M parameters' in lines[0] and len(lines) == 2


@pytest.mark.parametrize('content, message', [('{', 'is damaged'), ('{"version": 0}', 'has version 0, expected 1')])
def test_unusable_results_are_errors(question, tmp_path, content, message):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(ResultsError, match=message):
        ask(question, tmp_path, minutes=1)
