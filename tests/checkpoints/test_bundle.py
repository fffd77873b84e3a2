"""TensorFlow checkpoints are read without TensorFlow. The bytes below were written by TensorFlow 2.15.1."""

import base64
import io
import tarfile
from pathlib import Path

import pytest
import torch

from hybrid_backbones.checkpoints import CheckpointError, read_state_dict

INDEX = (
    'AAAGCAEaAggBAAsLZ2xvYmFsX3N0ZXAICRIAKAg1sJlJDgAVEW1vYXQvc3RlbS9jb252XzAvYmlhcwgBEgQSAggCIAgoCDXFryFSEQYda2VybmVs'
    'CAESEBICCAISAggCEgIIARICCAIgECggNR/6g3wAAAAAAQAAAAA+SklKAAAAAAEAAAAAwPKhsAABAm4AeQAAAAABAAAAAFbwUDN+CIsBDgAAAAAA'
    'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAV/uAiyR1R9s='
)
DATA = 'AwAAAAAAAAAAAAA/AACAvwAAAAAAAIA/AAAAQAAAQEAAAIBAAACgQAAAwEAAAOBA'
NAMES = {'model.ckpt.index': INDEX, 'model.ckpt.data-00000-of-00001': DATA}


@pytest.fixture
def bundle(tmp_path) -> Path:
    for name, content in NAMES.items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    return tmp_path / 'model.ckpt.index'


def pack(path: Path, names: dict[str, str], folder: str = 'moat0') -> Path:
    with tarfile.open(path, 'w:gz') as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(f'{folder}/{name}')
            content = base64.b64decode(content)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize('packed', [False, True], ids=['index', 'archive'])
def test_variables_are_those_that_tensorflow_wrote(bundle, tmp_path, packed):
    state, nest = read_state_dict(pack(tmp_path / 'moat.tar.gz', NAMES) if packed else bundle)
    assert (nest, [*state]) == ('', ['global_step', 'moat/stem/conv_0/bias', 'moat/stem/conv_0/kernel'])
    assert state['global_step'].item() == 3
    assert torch.equal(state['moat/stem/conv_0/bias'], torch.tensor([0.5, -1]))
    assert torch.equal(state['moat/stem/conv_0/kernel'], torch.arange(8.0).reshape(2, 2, 1, 2))


def test_an_archive_writes_nowhere_else(tmp_path):
    state, _ = read_state_dict(pack(tmp_path / 'moat.tar.gz', NAMES, folder='../../outside'))
    assert len(state) == 3
    assert not list(tmp_path.parent.rglob('outside'))
    assert [path.name for path in tmp_path.iterdir()] == ['moat.tar.gz']


@pytest.mark.parametrize('name', NAMES)
def test_every_length_that_is_cut_short_is_an_error(bundle, name):
    path = bundle.with_name(name)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r'model\.ckpt\.index is damaged or cut short'):
            read_state_dict(bundle)


def test_an_archive_without_a_checkpoint_or_its_data_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match='0 TensorFlow checkpoints in the archive'):
        read_state_dict(pack(tmp_path / 'empty.tar.gz', {'README': ''}))
    with pytest.raises(CheckpointError, match='data-00000-of-00001'):
        read_state_dict(pack(tmp_path / 'half.tar.gz', {'model.ckpt.index': INDEX}))
