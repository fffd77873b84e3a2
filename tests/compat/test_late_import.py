"""Imported last, as by a config that mmdet's own tools/train.py reads (`custom_imports`), all is still mended."""

import textwrap


def test_everything_is_mended_after_openmmlab_was_imported(fresh):
    code = """
        import mmengine, mmengine.runner, mmengine.optim, mmengine.model, mmengine.hub, mmcv, torch
        import hybrid_backbones
        mended = {
            'wrapper': mmengine.optim.AmpOptimWrapper.__init__,
            'loader': mmengine.runner.CheckpointLoader.load_checkpoint,
            'launch': mmengine.runner.runner.init_dist,
            'processes': mmengine.model.MMDistributedDataParallel.__init__,
            'log': mmengine.runner.Runner.build_logger,
        }
        for name, function in mended.items():
            assert function.__module__.startswith('hybrid_backbones.compat.'), name
        assert mmengine.runner.runner.init_dist is mmengine.dist.init_dist
        from mmcv.ops import roi_align
        import mmdet.apis, mmseg.apis
        print('mended')
    """
    assert fresh(textwrap.dedent(code)) == 'mended\n'


def test_wrapped_once_only(fresh):
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
