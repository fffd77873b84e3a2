"""Whatever is imported first: OpenMMLab is patched, and our classes are registered.

mmdet's own tools/train.py imports this package last, when it reads `custom_imports` of a config.
"""

import textwrap
from pathlib import Path

import pytest

import hybrid_backbones

FOLDER = Path(hybrid_backbones.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.iterdir() if path.suffix == '.py' or (path / '__init__.py').is_file())
for name in ('__init__', 'transformers_models'):  # the latter is for those who have transformers, which is not here
    MODULES.remove(name)
REGISTERED = """
from mmengine.registry import HOOKS, MODELS, TRANSFORMS
print('Conv2Former' in MODELS, 'SafeCheckpointHook' in HOOKS, 'LoadFromFileOrExplain' in TRANSFORMS)
"""


@pytest.mark.parametrize('module', MODULES)
def test_every_package_can_be_imported_first(fresh, module):
    assert fresh(f'import hybrid_backbones.{module}\n{REGISTERED}') == 'True True True\n'


def test_all_is_registered_where_mmengine_was_imported_before(fresh):
    assert fresh(f'import mmengine\nimport hybrid_backbones\n{REGISTERED}') == 'True True True\n'


def test_all_is_registered_when_mmengine_is_imported_afterwards(fresh):
    code = f"""
import hybrid_backbones, sys
assert 'mmengine' not in sys.modules
import mmengine
{REGISTERED}
"""
    assert fresh(code) == 'True True True\n'


def test_everything_is_patched_after_openmmlab_was_imported(fresh):
    code = """
        import mmengine, mmengine.runner, mmengine.optim, mmengine.model, mmengine.hub, mmcv, torch
        import hybrid_backbones
        patched = {
            'wrapper': mmengine.optim.AmpOptimWrapper.__init__,
            'loader': mmengine.runner.CheckpointLoader.load_checkpoint,
            'launch': mmengine.runner.runner.init_dist,
            'processes': mmengine.model.MMDistributedDataParallel.__init__,
            'log': mmengine.runner.Runner.build_logger,
        }
        for name, function in patched.items():
            assert function.__module__.startswith('hybrid_backbones.compat.'), name
        assert mmengine.runner.runner.init_dist is mmengine.dist.init_dist
        from mmcv.ops import roi_align
        import mmdet.apis, mmseg.apis
        print('patched')
    """
    assert fresh(textwrap.dedent(code)).endswith('patched\n')  # onedl's mmdet prints on import


def test_functions_are_wrapped_once(fresh):
    code = """
        import importlib, sys
        import hybrid_backbones
        import mmengine.runner.checkpoint as module
        before = module.CheckpointLoader.load_checkpoint.__func__
        for name in [name for name in sys.modules if name.startswith('hybrid_backbones.compat')]:
            del sys.modules[name]
        import hybrid_backbones.compat
        hybrid_backbones.compat.install()
        print(module.CheckpointLoader.load_checkpoint.__func__ is before)
    """
    assert fresh(textwrap.dedent(code)) == 'True\n'
