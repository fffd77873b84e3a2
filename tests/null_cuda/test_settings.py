"""What a run sets on a CUDA device, and leaves on request."""

import json

import pytest


@pytest.mark.parametrize(
    ('options', 'expected'),
    [({}, ['high', False]), (dict(fp32='strict', cudnn_attention=True), ['highest', True])],
)
def test_fp32_products_and_attention(options, expected, run_on_null_device):
    *said, settings = run_on_null_device('settings.py', json.dumps(options)).splitlines()
    assert json.loads(settings) == [*expected, None]
    assert ('--fp32 strict' in ''.join(said)) == (not options)
    assert ('--cudnn-attention' in ''.join(said)) == (not options)


def test_bf16_is_warned_of_where_attention_in_it_is_not_fused(run_on_null_device, monkeypatch):
    monkeypatch.setenv('NULL_CUDA_SM', '75')
    warning = json.loads(run_on_null_device('settings.py', '{}').splitlines()[-1])[-1]
    assert 'compute capability 7.5' in warning and '--amp fp16' in warning
