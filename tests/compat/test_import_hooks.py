"""The import hook: around, after and instead of a module, imported before or later."""

import importlib
import importlib.util
import sys
import zipfile
from contextlib import contextmanager
from importlib.machinery import ModuleSpec

import pytest

from hybrid_backbones.compat import import_hooks


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of an importable, not yet imported module that records when it executes, and the record."""
    name, record = f'hooked_{tmp_path.name.replace("-", "_")}', []
    (tmp_path / f'{name}.py').write_text('import hooked_record\nhooked_record.record.append("executed")\nvalue = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, 'hooked_record', type('Record', (), {'record': record}))
    monkeypatch.setattr(import_hooks, '_around', {})
    monkeypatch.setattr(import_hooks, '_after', {})
    monkeypatch.setattr(import_hooks, '_replace', {})
    yield name, record
    sys.modules.pop(name, None)


def test_after_waits_for_the_import(module):
    name, record = module
    import_hooks.after(name, lambda imported: record.append(imported.value))
    assert importlib.util.find_spec(name) is not None
    assert record == []
    imported = importlib.import_module(name)
    assert record == ['executed', 1]
    importlib.reload(imported)
    assert record == ['executed', 1, 'executed', 1]


def test_after_an_import_acts_at_once(module):
    name, record = module
    importlib.import_module(name)
    import_hooks.after(name, lambda imported: record.append(imported.value))
    assert record == ['executed', 1]


def test_around_encloses_the_execution_also_when_it_fails(module):
    name, record = module

    @contextmanager
    def context():
        record.append('enter')
        try:
            yield
        finally:
            record.append('exit')

    import_hooks.around(name, context)
    importlib.import_module(name)
    assert record == ['enter', 'executed', 'exit']
    del sys.modules[name], record[:]
    sys.modules['hooked_record'].record = None
    with pytest.raises(AttributeError):
        importlib.import_module(name)
    assert record == ['enter', 'exit']


def test_a_hooked_module_keeps_its_loader_and_source(module):
    name, _ = module
    import_hooks.after(name, lambda imported: None)
    imported = importlib.import_module(name)
    assert type(imported.__loader__) is importlib.machinery.SourceFileLoader
    assert 'value = 1' in imported.__loader__.get_source(name)


def test_replace_decides_for_present_and_absent_modules(module):
    name, record = module

    class Loader:
        def create_module(self, spec):
            return None

        def exec_module(self, created):
            created.value = 2

    seen = []
    for asked in (name, f'absent_{name}'):
        import_hooks.replace(asked, lambda found, asked=asked: seen.append(found) or ModuleSpec(asked, Loader()))
        assert importlib.import_module(asked).value == 2
        del sys.modules[asked]
    assert [found is not None for found in seen] == [True, False]
    assert record == []


def test_modules_of_a_zip_file_share_a_loader(module, tmp_path, monkeypatch):
    record = module[1]
    with zipfile.ZipFile(tmp_path / 'two.zip', 'w') as file:
        for name in ('zipped_one', 'zipped_two'):
            file.writestr(f'{name}.py', '')
    monkeypatch.syspath_prepend(tmp_path / 'two.zip')
    for name in ('zipped_one', 'zipped_two'):
        import_hooks.after(name, lambda imported: record.append(imported.__name__))
        importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
    assert record == ['zipped_one', 'zipped_two']


def test_other_modules_are_left_alone(module):
    name, _ = module
    assert import_hooks._finder.find_spec(name) is None


def test_install_is_idempotent():
    from hybrid_backbones import compat

    before = list(sys.meta_path), {name: list(found) for name, found in import_hooks._after.items()}
    compat.install()
    assert (list(sys.meta_path), import_hooks._after) == before


def test_rebind_reaches_modules_imported_before(monkeypatch):
    import mmengine.utils
    from mmengine.config import config

    old, new = config.is_installed, object()
    assert mmengine.utils.is_installed is old
    for owner in (config, mmengine.utils, mmengine.utils.package_utils, mmengine):
        monkeypatch.setattr(owner, 'is_installed', old)
    import_hooks.rebind(old, new)
    assert config.is_installed is mmengine.utils.is_installed is mmengine.is_installed is new
