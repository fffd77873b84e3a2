"""Every branch that only a GPU takes is executed: no error, no host synchronization, no tensor left on the CPU."""

import json
from collections.abc import Callable

import pytest
from families import ONE_OF_EACH


@pytest.fixture(scope='module')
def errors(run_on_null_device: Callable[..., str]) -> dict[str, list[str]]:
    """Of all backbones, by one process: to start it costs more than its passes."""
    return json.loads(run_on_null_device('passes.py', 'pairs', *ONE_OF_EACH).splitlines()[-1])


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_passes_on_a_cuda_device(name, errors):
    assert not errors[name], '\n'.join(errors[name])


@pytest.mark.slow
def test_all_passes_on_a_cuda_device(run_on_null_device):
    errors = json.loads(run_on_null_device('passes.py', 'all', *ONE_OF_EACH).splitlines()[-1])
    assert not any(errors.values()), errors


@pytest.fixture(scope='module')
def sharding_errors(run_on_null_device: Callable[..., str]) -> dict[str, str | None]:
    return json.loads(run_on_null_device('sharded.py', *ONE_OF_EACH).splitlines()[-1])


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_sharded_by_block(name, sharding_errors):
    assert sharding_errors[name] is None


def test_the_null_device_reports_host_synchronization(run_on_null_device):
    assert 'called a synchronizing CUDA operation' in run_on_null_device('synchronization.py')


def test_the_check_of_the_loss_does_not_wait_for_the_backward_pass(run_on_null_device):
    assert float(run_on_null_device('finite_loss.py').splitlines()[-1]) == 3.5
