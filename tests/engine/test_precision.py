"""`--amp auto` trains in what is fastest here, by a measurement that leaves no trace in the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from end_to_end.tiny import SEGMENTOR
from mmengine.config import Config

from hybrid_backbones.datasets.shapes import ensure_shapes
from hybrid_backbones.engine import precision
from hybrid_backbones.engine.precision import PRECISIONS, fastest, precision_of_run, reference_layers
from hybrid_backbones.engine.run import train

OPTIONS = {
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'randomness.seed': 0,
    'train_cfg.max_iters': 2,
    'default_hooks.checkpoint.interval': 2,
}
DTYPES = dict(fp32='float32', bf16='bfloat16', fp16='float16')


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('precision') / 'config.py'
    path.write_text(SEGMENTOR)
    ensure_shapes(path.parent / 'data', num_train=8, num_val=1, size=64)
    return path


def run(config: Path, name: str, amp: str | None, **options):
    folder = config.parent / name
    names = {'visualizer.name': name}  # MMEngine gives a process one visualizer of a name
    data = str(config.parent / 'data')
    return train(str(config), str(folder), data, amp=amp, mallopt=False, options=OPTIONS | names, **options)


def test_the_measurement_leaves_no_trace_and_the_config_tells_the_choice(config):
    runner = run(config, 'auto', 'auto')
    (chosen,) = {precision_of_run(str(config.parent / 'auto' / 'iter_2.pth'))}
    written = Config.fromfile(config.parent / 'auto' / 'config.py').optim_wrapper
    assert written.type == ('OptimWrapper' if chosen == 'fp32' else 'AmpOptimWrapper')
    log = next((config.parent / 'auto').rglob('*.log')).read_text()
    assert f"--amp auto: training in {chosen}; a step takes, in times fp32's: fp32 1.00" in log
    same = run(config, 'same', None if chosen == 'fp32' else chosen)
    states = runner.model.state_dict(), same.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_a_resumed_run_keeps_its_precision(config):
    run(config, 'resumed', 'bf16')
    assert precision_of_run(str(config.parent / 'resumed' / 'iter_2.pth')) == 'bf16'
    runner = run(config, 'resumed', 'auto', resume='auto')
    assert runner.optim_wrapper.cast_dtype == torch.bfloat16 and runner.iter == 2


def test_fp32_unless_something_is_saved():
    assert fastest(dict(fp32=1.0, bf16=0.6, fp16=0.5)) == 'fp16'
    assert fastest(dict(fp32=1.0, bf16=0.99, fp16=3.0)) == 'fp32'
    assert fastest(dict(fp32=1.0)) == 'fp32'


def test_reference_code_is_found_by_its_time(monkeypatch):
    """A layer whose fp16 is computed in a loop, as PyTorch's was in some releases, and one of every other kind."""

    class Loop(torch.nn.Linear):
        def forward(self, x):
            repetitions = (
                400 if torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu') == torch.float16 else 1
            )
            for _ in range(repetitions):
                y = super().forward(x)
            return y

    layer, x = Loop(256, 256), torch.randn(256, 256)
    step = dict(loop=lambda: layer(x).float().sum().backward(), linear=lambda: None)
    monkeypatch.setattr(precision, '_layers', lambda device: step)
    slow = reference_layers('cpu')
    assert slow.keys() == {'fp16'} and slow['fp16'].startswith('loop takes ')


@pytest.mark.slow
@pytest.mark.parametrize('isa', ['ALL', 'AVX2'])
def test_never_more_than_5_percent_slower_than_the_best(config, isa):
    """20 choices, each held against times of all precisions that are usable, by many rounds."""
    command = [sys.executable, __file__, str(config)]
    env = os.environ | dict(ONEDNN_MAX_CPU_ISA=isa, PYTHONPATH=str(Path(__file__).parents[1]))
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(isa, done.stdout)


def hold_choices_against_times(config: str) -> None:
    from mmengine.runner import Runner

    from hybrid_backbones.engine.config import load_config

    cfg = load_config(config, data_root=str(Path(config).parent / 'data'), options=OPTIONS)
    cfg.work_dir = str(Path(config).parent / 'choices')
    runner = Runner.from_cfg(cfg)
    slow = reference_layers('cpu')
    usable = [name for name in PRECISIONS if name not in slow]
    step = precision._training_step(runner.model, runner.train_loop.dataloader)
    choices = [fastest(precision._measure(step, usable, 'cpu')) for _ in range(20)]
    precision._ROUNDS = 20
    times = precision._measure(step, usable, 'cpu')
    print(slow, times, sorted(choices))
    assert max(times[name] for name in choices) <= 1.05 * min(times.values())


if __name__ == '__main__':
    hold_choices_against_times(sys.argv[1])
