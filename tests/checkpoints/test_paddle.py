"""`.pdparams` files, written here as Paddle's `save` does, are read without Paddle and run no code.

A file that Paddle 3.3.1 wrote of PaddleClas' CvT-13 at d178931, with random weights, gave its logits to 3.4e-6 of their
deviation.
"""

import os
import pickle

import numpy as np
import pytest
import torch

from hybrid_backbones import create_classifier
from hybrid_backbones.backbones import CvT
from hybrid_backbones.checkpoints import CheckpointError, load_pretrained, read_state_dict

NETWORK = dict(num_classes=7, arch=CvT.tiny_arch)


class Parameter:
    """Pickled as Paddle pickles its tensors."""

    def __init__(self, name: str, value: np.ndarray) -> None:
        self.parts = name, value

    def __reduce__(self):
        return tuple, (self.parts,)


def in_paddle_s_form(network: torch.nn.Module) -> dict[str, np.ndarray]:
    state = {}
    for key, value in network.state_dict().items():
        if not key.endswith('num_batches_tracked'):
            key = key.replace('running_mean', '_mean').replace('running_var', '_variance')
            state[key] = (value.t() if value.ndim == 2 else value).contiguous().numpy()
    return state


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('parameters', [False, True])
def test_cvt_of_paddle_loads_completely(tmp_path, protocol, parameters):
    network = create_classifier('cvt_13', **NETWORK)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) + 0.1)
    state = in_paddle_s_form(network)
    content = {key: Parameter(f'linear_{key}.w_0', value) for key, value in state.items()} if parameters else state
    names = {'StructuredToParameterName@@': {key: key for key in state}}
    file = tmp_path / 'CvT.pdparams'
    file.write_bytes(pickle.dumps(content | names, protocol))
    again = create_classifier('cvt_13', **NETWORK)
    report = load_pretrained(again, file)
    assert report.matched == report.total and not report.ignored
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


class Command:
    def __reduce__(self):
        return os.mkdir, ('written',)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (pickle.dumps({'weight': Command()}), r'could run code when loaded \((posix|nt)\.mkdir is no part of an array'),
        (pickle.dumps([np.zeros(3)]), 'a list, where arrays by name were expected'),
        (pickle.dumps({'weight': np.zeros(1000)})[:500], 'damaged'),
        (pickle.dumps({'weight': np.array([Parameter], dtype=object)}), 'damaged'),
    ],
    ids=['code', 'list', 'cut', 'objects'],
)
def test_other_pickles_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file.pdparams').write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(tmp_path / 'file.pdparams')
    assert not (tmp_path / 'written').exists()
