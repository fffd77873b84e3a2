"""mmsegmentation without ftfy and regex, which only its text tokenizer needs."""

import textwrap

CODE = """
    import importlib.util, sys
    find = importlib.util.find_spec
    hidden = sys.argv[1:]
    importlib.util.find_spec = lambda name, package=None: None if name in hidden else find(name, package)
    import hybrid_backbones
    import mmseg.utils
    print([name in sys.modules for name in hidden], hybrid_backbones.compat.applied.get('text'))
    try:
        mmseg.utils.tokenize(['a cat'])
    except ModuleNotFoundError as error:
        print(error.name, error)
"""


def test_absent(fresh):
    state, error = fresh(textwrap.dedent(CODE), 'ftfy', 'regex').splitlines()
    assert state.startswith('[False, False] ftfy and regex not installed')
    assert error.startswith('ftfy ')
    assert 'pip install ftfy' in error


def test_present_is_left_alone(fresh, tmp_path):
    (tmp_path / 'ftfy.py').write_text('fix_text = str\n')
    (tmp_path / 'regex.py').write_text('from re import *\ncompile = lambda pattern, flags=0: pattern\n')
    code = f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n' + textwrap.dedent("""
        import hybrid_backbones, mmseg.utils.tokenizer
        print(mmseg.utils.tokenizer.ftfy.__file__, hybrid_backbones.compat.applied.get('text'))
    """)
    assert fresh(code) == f'{tmp_path / "ftfy.py"} None\n'
