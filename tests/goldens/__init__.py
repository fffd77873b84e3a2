"""Outputs of the authors' code (`networks/`) and of mmcv's compiled operators (`operators/`), and their reader.

The README in each folder gives the rules by which weights and inputs are computed, and the tolerance.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent
# Values of a weight from standard normal noise of its shape.
RULES = {
    'fan_in': lambda n: n / math.sqrt(np.prod(n.shape[1:])),
    'scale': lambda n: 1 + 0.1 * n,
    'bias': lambda n: 0.1 * n,
    'var': lambda n: 1 + 0.1 * np.abs(n),
    'gamma': lambda n: 0.5 + 0.1 * n,
    'gamma_small': lambda n: 0.05 + 0.01 * n,
    'table': lambda n: 0.2 * n,
    'posproj': lambda n: 0.02 * n,
}


def golden_file(kind: str, name: str) -> Path:
    """A file of `networks/` or `operators/`.

    Raises:
        FileNotFoundError: It is not there. Goldens are part of the repository, so the test fails.
    """
    path = FOLDER / kind / name
    if not path.is_file():
        raise FileNotFoundError(f'golden {path.relative_to(FOLDER)} is missing from {FOLDER}: restore it from git')
    return path


class Golden:
    """One case of `networks/`: the authors' state dict, an input and sampled outputs."""

    def __init__(self, case: str) -> None:
        self.meta = json.loads(golden_file('networks', f'{case}.json').read_text())
        self.samples = np.load(golden_file('networks', f'{case}.npz'))

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors under the authors' keys, by the rule listed for each."""
        state = {}
        for key, shape, rule in self.meta['state_dict']:
            if rule == 'keep':
                continue
            noise = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape))
            state[key] = torch.from_numpy(RULES[rule](noise).astype(np.float32))
        assert math.isclose(sum(t.double().sum() for t in state.values()), self.meta['fill_check']['sum'], abs_tol=1e-6)
        return state

    def image(self) -> Tensor:
        """The input, `(1, 3, H, W)`."""
        given = self.meta['input']
        image = np.random.RandomState(given['seed']).standard_normal((1, 3, given['H'], given['W']))
        return torch.from_numpy(image.astype(np.float32))

    def check(self, name: str, output: Tensor) -> None:
        """Compare shape and samples of one output within the README's tolerance."""
        expected = self.meta['outputs'][name]
        assert list(output.shape) == expected['shape']
        flat = output.contiguous().flatten()
        samples = flat[np.linspace(0, flat.numel() - 1, 256).astype(np.int64)]
        self._compare(name, samples, f'{name}/samples')

    def check_logits(self, logits: Tensor) -> None:
        """Compare the first 64 logits of the one image."""
        assert list(logits.shape) == [1, 1000]
        self._compare('logits', logits[0, :64], 'logits64')

    def check_parameters(self, classifier: nn.Module, detector: nn.Module, head: tuple[str, ...]) -> None:
        """Compare names, shapes and number of parameters; the detector's trunk lacks what starts with `head`."""
        shapes = {key: torch.Size(shape) for key, shape, _ in self.meta['state_dict']}
        assert {key: value.shape for key, value in classifier.state_dict().items()} == shapes
        assert sum(p.numel() for p in classifier.parameters()) == self.meta['num_parameters']
        ours = {key for key in detector.state_dict() if not key.startswith(detector.dense_only_prefixes)}
        assert ours == {key for key in shapes if not key.startswith(head)}

    def _compare(self, name: str, values: Tensor, key: str) -> None:
        tolerance = max(2e-5, 4 * self.meta['outputs'][name]['fp32_vs_fp64_max_abs_diff'])
        difference = (values - torch.from_numpy(self.samples[key])).abs().max().item()
        assert difference <= tolerance, f'{name}: off by {difference:.1e}, allowed {tolerance:.1e}'
