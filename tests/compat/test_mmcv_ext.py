"""`mmcv._ext`: the stand-in where it is absent or broken, the compiled one where it works."""

import importlib.util
import textwrap

import pytest

# mmcv, with a folder before its own from which an extension module is found.
WITH_FOLDER = """
import sys, importlib.util, logging
import mmcv
mmcv.__path__.insert(0, sys.argv[1])
import hybrid_backbones
from hybrid_backbones import compat
"""


def _has_compiled_mmcv() -> bool:
    spec = importlib.util.find_spec('mmcv')
    return any(
        importlib.machinery.PathFinder.find_spec('mmcv._ext', [folder]) for folder in spec.submodule_search_locations
    )


@pytest.mark.skipif(_has_compiled_mmcv(), reason='this mmcv has compiled operators')
def test_absent(fresh):
    code = """
        import importlib.util, sys
        import hybrid_backbones
        spec = importlib.util.find_spec('mmcv._ext')
        assert spec.name == 'mmcv._ext' and 'mmcv._ext' not in sys.modules
        from mmcv.utils.ext_loader import check_ops_exist
        from mmengine.utils.dl_utils.misc import mmcv_full_available
        assert check_ops_exist() and mmcv_full_available()
        import mmcv.ops, torch
        module = sys.modules['mmcv._ext']
        assert module is mmcv._ext and module.__spec__.name == 'mmcv._ext' and module.__package__ == 'mmcv'
        boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 9, 10], [20, 20, 30, 30]])
        print(mmcv.ops.nms(boxes, torch.tensor([.9, .8, .7]), 0.5)[1].tolist())
        print(hybrid_backbones.compat.applied['operators'])
        try:
            mmcv.ops.RoIAlignRotated(7, 0.25)
        except NotImplementedError as error:
            print(error)
    """
    out = fresh(textwrap.dedent(code))
    assert out.splitlines()[0] == '[0, 2]'
    assert 'no compiled operators' in out
    assert "'roi_align_rotated_forward' needs compiled mmcv" in out


def test_mmcv_ops_imported_first_in_vain(fresh):
    """A user's session that failed on `mmcv.ops` goes on after importing us."""
    code = """
        import mmcv
        try:
            import mmcv.ops
        except ModuleNotFoundError:
            pass
        import hybrid_backbones
        import mmcv.ops
        print(callable(mmcv.ops.roi_align))
    """
    assert fresh(textwrap.dedent(code)) == 'True\n'


def test_compiled_is_preferred(fresh, tmp_path):
    (tmp_path / '_ext.py').write_text('compiled = True\n')
    code = (
        WITH_FOLDER + 'import mmcv._ext; print(mmcv._ext.compiled, mmcv._ext.__file__, compat.applied.get("operators"))'
    )
    assert fresh(code, str(tmp_path)) == f'True {tmp_path / "_ext.py"} None\n'


def test_broken_is_replaced_and_said_loudly(fresh, tmp_path):
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    (tmp_path / f'_ext{suffix}').write_bytes(b'built for another torch')
    code = WITH_FOLDER + textwrap.dedent("""
        logging.basicConfig(stream=sys.stdout, level=logging.WARNING)
        import mmcv._ext
        print(callable(mmcv._ext.nms))
    """)
    warning, works = fresh(code, str(tmp_path)).strip().rsplit('\n', 1)
    assert works == 'True'
    assert warning.startswith('WARNING:hybrid_backbones')
    assert f'_ext{suffix}' in warning
    assert 'Rebuild mmcv' in warning
