"""MMEngine's own checkpoints load with `weights_only=True`; nothing else that a pickle can hold does."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from torch.utils.data import Dataset


class Points(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(x=torch.full((3,), float(index)))


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x, mode='loss'):
        return dict(loss=self.layer(torch.stack(x)).square().mean())


def _runner(work_dir, epochs, **options):
    return Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=dict(batch_size=2, dataset=Points(), sampler=dict(type='DefaultSampler', shuffle=True)),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
            dict(type='MultiStepLR', milestones=[1], by_epoch=True),
        ],
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        custom_hooks=[dict(type='EMAHook')],
        experiment_name=f'{work_dir.name}_{epochs}',
        **options,
    )


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """A checkpoint of MMEngine's Runner with optimizer, two schedulers, EMA and the message hub's log."""
    work_dir = tmp_path_factory.mktemp('run')
    _runner(work_dir, epochs=1).train()
    return work_dir / 'epoch_1.pth'


def test_real_checkpoint_loads_and_resumes(checkpoint):
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint, weights_only=True)
    content = CheckpointLoader.load_checkpoint(str(checkpoint))
    losses = content['message_hub']['log_scalars']['train/loss']
    assert isinstance(losses, HistoryBuffer)
    assert losses.data[0].shape == (2,)
    assert losses.statistics('mean') == pytest.approx(losses.data[0].mean())
    assert {'optimizer', 'param_schedulers', 'ema_state_dict'} <= set(content)

    runner = _runner(checkpoint.parent, epochs=2, resume=True)
    runner.train()
    assert runner.iter == 4
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == 4


def test_the_allowance_ends_with_the_load(checkpoint):
    before = set(torch.serialization.get_safe_globals())
    CheckpointLoader.load_checkpoint(str(checkpoint))
    assert set(torch.serialization.get_safe_globals()) == before
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint, weights_only=True)


def test_users_own_allowances_stay(checkpoint):
    with torch.serialization.safe_globals([np.ndarray, ConfigDict]):
        CheckpointLoader.load_checkpoint(str(checkpoint))
        assert {np.ndarray, ConfigDict} <= set(torch.serialization.get_safe_globals())


@pytest.mark.parametrize('dtype', ['bool', 'uint8', 'int32', 'int64', 'float16', 'float32', 'float64', 'U4', 'S3'])
def test_numpy_values(tmp_path, dtype):
    array = np.array([[0, 1], [2, 3]]).astype(dtype)
    torch.save(dict(array=array, scalar=array[1, 1]), tmp_path / 'a.pth')
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert loaded['array'].dtype == array.dtype
    assert (loaded['array'] == array).all()
    assert loaded['scalar'] == array[1, 1]


@pytest.mark.parametrize(('saved', 'other'), [(b'numpy._core.', b'numpy.core.'), (b'numpy.core.', b'numpy._core.')])
def test_files_of_either_numpy(tmp_path, checkpoint, saved, other):
    """NumPy 2 renamed its core; files name the one that wrote them."""
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(tmp_path / 'other.pth', 'w') as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content.replace(saved, other) if name.endswith('data.pkl') else content)
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'other.pth'))
    assert len(content['message_hub']['log_scalars']['train/loss'].data[0]) == 2


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __call__(self):
        """Never; pickle wants its first item callable."""

    def __reduce__(self):
        return self.call


ATTACKS = {
    'system': lambda file: Call(os.system, f'touch {file}'),
    'eval': lambda file: Call(eval, f'open({str(file)!r}, "w")'),
    'attribute': lambda file: Call(getattr, HistoryBuffer, '__init__'),
    'attribute of a tensor': lambda file: Call(getattr, torch.Tensor, 'tofile'),
    'called attribute': lambda file: Call(Call(getattr, HistoryBuffer, 'mean'), ()),
    'numpy': lambda file: Call(np.fromfile, str(file)),
}


@pytest.mark.parametrize('attack', ATTACKS)
@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_code_is_refused_and_does_not_run(tmp_path, attack, legacy):
    file = tmp_path / 'attack.pth'
    content = dict(state_dict={}, extra=ATTACKS[attack](tmp_path / 'ran'))
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    for load in (CheckpointLoader.load_checkpoint, lambda path: load_checkpoint(torch.nn.Linear(1, 1), path)):
        with pytest.raises(pickle.UnpicklingError, match=r'attack\.pth'):
            load(str(file))
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('switch', ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'])
def test_switches_of_the_environment_do_not_matter_and_stay(tmp_path, monkeypatch, switch):
    monkeypatch.setenv(switch, '1')
    torch.save(Call(os.system, f'touch {tmp_path / "ran"}'), tmp_path / 'attack.pth')
    with pytest.raises(pickle.UnpicklingError, match=r'attack\.pth'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'attack.pth'))
    assert not (tmp_path / 'ran').exists()
    assert os.environ[switch] == '1'


def test_downloads_too(tmp_path, monkeypatch):
    """torch.hub asks for `weights_only=False`."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    torch.save(Call(os.system, f'touch {tmp_path / "ran"}'), tmp_path / 'checkpoints' / 'attack.pth')
    with pytest.raises(pickle.UnpicklingError, match=r'https://example.com/attack\.pth'):
        CheckpointLoader.load_checkpoint('https://example.com/attack.pth')
    assert not (tmp_path / 'ran').exists()


class Settings:
    """Something that a user's own hook may store."""


def test_refusal_names_file_class_and_way_out(tmp_path):
    file = tmp_path / 'mine.pth'
    torch.save(dict(state_dict={}, one=Settings(), other=ConfigDict()), file)
    with pytest.raises(pickle.UnpicklingError) as refusal:
        CheckpointLoader.load_checkpoint(str(file))
    message = str(refusal.value)
    assert str(file) in message
    assert f'{__name__}.Settings' in message
    assert 'mmengine.config.config.ConfigDict' in message
    assert 'add_safe_globals' in message
    with torch.serialization.safe_globals([Settings, ConfigDict]):
        assert isinstance(CheckpointLoader.load_checkpoint(str(file))['one'], Settings)


def test_not_a_checkpoint(tmp_path):
    (tmp_path / 'page.pth').write_text('<html>404</html>')
    with pytest.raises(pickle.UnpicklingError, match=r'page\.pth cannot be read as a checkpoint'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'page.pth'))


def test_the_text_of_a_config_is_not_executed_on_resuming(tmp_path, checkpoint):
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "exploded")!r})'
    torch.save(content, tmp_path / 'epoch_1.pth')
    runner = _runner(tmp_path, epochs=2, load_from=str(tmp_path / 'epoch_1.pth'), resume=True)
    runner.train()
    assert runner.epoch == 2
    assert not (tmp_path / 'exploded').exists()
