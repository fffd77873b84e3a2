"""Finding packages and config bases without pkg_resources and pkgutil.find_loader."""

import importlib.metadata
import textwrap
from pathlib import Path

import mmdet
import mmseg
import pytest

from hybrid_backbones.compat import packages

# The distribution that brings mmseg: upstream's or the fork's.
MMSEG = next(d.name for d in importlib.metadata.distributions() if 'mmseg' in packages.modules_of(d))


def test_installed_and_not():
    assert packages.is_installed('mmdet')
    assert packages.is_installed(MMSEG)
    assert packages.is_installed('mmseg')
    assert packages.is_installed('json')
    assert not packages.is_installed('no_such_package')


def test_paths_and_modules():
    assert packages.package2module(MMSEG) == 'mmseg'
    assert packages.get_installed_path(MMSEG) == packages.get_installed_path('mmseg') == mmseg.__path__[0]
    assert packages.get_installed_path('mmdet') == mmdet.__path__[0]
    with pytest.raises(importlib.metadata.PackageNotFoundError, match='no_such_package'):
        packages.get_installed_path('no_such_package')


def test_editable_install():
    """Its metadata lies in site-packages, its modules do not."""
    assert packages.get_installed_path('hybrid_backbones') == str(Path(packages.__file__).parents[1])


def test_distribution_without_top_level_file(tmp_path, monkeypatch):
    info = tmp_path / 'some_tool-1.0.dist-info'
    info.mkdir()
    (tmp_path / 'sometool').mkdir()
    (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: some-tool\nVersion: 1.0\n')
    (info / 'RECORD').write_text('sometool/__init__.py,,\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert packages.package2module('some-tool') == 'sometool'
    assert packages.get_installed_path('some-tool') == str(tmp_path / 'sometool')


@pytest.mark.parametrize('imported_before', ['', 'import mmengine.config, mmengine.hub, mmengine.runner'])
def test_config_bases(fresh, tmp_path, imported_before):
    """Where pkg_resources is absent, also for modules that hold the functions already."""
    (tmp_path / 'det.py').write_text("_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'\n")
    (tmp_path / 'seg.py').write_text("_base_ = 'mmseg::_base_/models/upernet_r50.py'\n")
    code = f"""
        import sys, importlib.util
        find = importlib.util.find_spec
        importlib.util.find_spec = lambda name, package=None: None if name == 'pkg_resources' else find(name, package)
        {imported_before}
        import hybrid_backbones
        from mmengine.config import Config
        print(Config.fromfile(sys.argv[1] + '/det.py').model.type, Config.fromfile(sys.argv[1] + '/seg.py').model.type)
        from mmengine.hub import get_config
        print(get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model.type)
        print('packages' in hybrid_backbones.compat.applied)
    """
    assert fresh(textwrap.dedent(code), str(tmp_path)).split() == ['MaskRCNN', 'EncoderDecoder', 'MaskRCNN', 'True']


@pytest.mark.parametrize(
    ('version', 'owner'), [('79.0.1', 'mmengine.utils.package_utils'), ('81.0.0', packages.__name__)]
)
def test_setuptools_that_have_pkg_resources(fresh, tmp_path, version, owner):
    """They are left alone while it does not warn about its end."""
    (tmp_path / 'pkg_resources.py').write_text('')
    info = tmp_path / f'setuptools-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: setuptools\nVersion: {version}\n')
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import hybrid_backbones, mmengine.utils
        print(mmengine.utils.is_installed.__module__)
    """
    assert fresh(textwrap.dedent(code), str(tmp_path)).strip() == owner


def test_find_loader_of_python_3_14(fresh):
    code = """
        import pkgutil
        vars(pkgutil).pop('find_loader', None)
        from hybrid_backbones import compat
        from mmcv.utils.ext_loader import check_ops_exist
        print(check_ops_exist(), pkgutil.find_loader('no_such_package'), 'find_loader' in compat.applied)
    """
    assert fresh(textwrap.dedent(code)) == 'True None True\n'
