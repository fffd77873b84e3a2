"""Kernels that a GPU would be given, and memory: counted, not timed."""

import json
from collections.abc import Callable

import pytest


@pytest.fixture(scope='module')
def training(run_on_null_device: Callable[..., str]) -> dict[str, dict[str, int]]:
    return json.loads(run_on_null_device('launches.py', 'training', 'coatnet_0', 'moat_0').splitlines()[-1])


# Before attention had a path for GPUs: 6,932 and 9,567 launches backward; 5,734 and 7,193 MiB, of which 1.15.
@pytest.mark.parametrize(('name', 'launches', 'peak_mib'), [('coatnet_0', 800, 6594), ('moat_0', 1150, 8271)])
def test_attention_with_offset_tables_trains_in_few_launches(name, launches, peak_mib, training):
    assert training[name]['backward'] <= launches
    assert training[name]['peak_mib'] <= peak_mib


@pytest.fixture(scope='module')
def inference(run_on_null_device: Callable[..., str]) -> dict[str, dict[str, int]]:
    names = 'replknet_31b', 'slak_t', 'botnet_50'
    return json.loads(run_on_null_device('launches.py', 'inference', *names).splitlines()[-1])


# Fused at first: 324, 363 and 368. BoTNet's BatchNorms behind its three attention layers take two kernels each.
@pytest.mark.parametrize(('name', 'launches'), [('replknet_31b', 324), ('slak_t', 363), ('botnet_50', 374)])
def test_unfused_inference_folds_once(name, launches, inference):
    assert inference[name]['unfused'] <= launches < inference[name]['first']
