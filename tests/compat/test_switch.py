"""`HYBRID_BACKBONES_COMPAT=0` leaves MMEngine as it is."""

import textwrap

import pytest

from hybrid_backbones import compat

PATCHED = """
    import sys, importlib.util
    import hybrid_backbones
    import mmengine.dist, mmengine.hub, mmengine.model, mmengine.optim, mmengine.runner
    functions = [
        mmengine.dist.init_dist,
        mmengine.model.MMDistributedDataParallel.__init__,
        mmengine.optim.AmpOptimWrapper.__init__,
        mmengine.optim.AmpOptimWrapper.optim_context,
        mmengine.runner.CheckpointLoader.load_checkpoint,
        mmengine.runner.Runner.build_logger,
        mmengine.runner.runner.init_dist,
    ]
    ours = [function.__qualname__ for function in functions if function.__module__.startswith('hybrid_backbones')]
    from mmengine.registry import MODELS
    print(len(functions), len(ours), list(hybrid_backbones.compat.applied), 'Conv2Former' in MODELS)
"""


@pytest.mark.parametrize('imported_before', [False, True])
def test_off_leaves_every_function_of_mmengine_the_original(fresh, imported_before):
    code = textwrap.dedent(PATCHED)
    if imported_before:
        code = 'import mmengine.runner\n' + code
    assert fresh(code, HYBRID_BACKBONES_COMPAT='0') == '7 0 [] True\n'


def test_on_patches_all_of_them(fresh):
    number, patched, *_ = fresh(textwrap.dedent(PATCHED), HYBRID_BACKBONES_COMPAT='1').split()
    assert number == patched == '7'


def test_off_provides_no_operators(fresh):
    code = """
        import hybrid_backbones
        try:
            import mmcv._ext
        except ImportError:
            print('absent')
        else:
            print(mmcv._ext.__spec__.origin)
    """
    assert 'hybrid_backbones' not in fresh(textwrap.dedent(code), HYBRID_BACKBONES_COMPAT='0')


@pytest.mark.parametrize('value', ['', 'off', '2'])
def test_another_value_is_an_error_that_names_it(fresh, monkeypatch, value):
    monkeypatch.setenv('HYBRID_BACKBONES_COMPAT', value)
    with pytest.raises(ValueError, match=rf"HYBRID_BACKBONES_COMPAT='{value}': expected 1, .* or 0"):
        compat.enabled()
    code = """
        try:
            import hybrid_backbones
        except ValueError as error:
            print(error)
    """
    assert f"HYBRID_BACKBONES_COMPAT='{value}'" in fresh(textwrap.dedent(code), HYBRID_BACKBONES_COMPAT=value)
