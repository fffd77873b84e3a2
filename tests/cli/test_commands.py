"""The command `hybrid-backbones`: its subcommands are the tools, and its own help needs nothing heavy."""

import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hybrid_backbones import __version__, cli

TOOLS = Path(__file__).parents[2] / 'tools'
RENAMED = {'swap': 'swap_backbone', 'speed': 'benchmark_speed'}


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr(sys, 'argv', ['hybrid-backbones', *words])
    try:
        return cli.main()
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize('command', cli.COMMANDS)
def test_every_subcommand_shows_its_own_help(command, monkeypatch, capsys):
    assert not call(monkeypatch, command, '--help')  # `record` of torch.distributed makes None of 0
    assert capsys.readouterr().out.startswith(f'usage: hybrid-backbones {command} [')


def test_help_lists_the_subcommands_without_torch():
    code = """
        import sys
        from hybrid_backbones.cli import main
        sys.argv = ['hybrid-backbones', '--help']
        try:
            main()
        finally:
            print('imported:', *{'torch', 'mmengine', 'numpy'} & sys.modules.keys())
    """
    done = subprocess.run([sys.executable, '-c', f'if True:{code}'], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == 'imported:', done.stderr
    assert all(f'\n    {command}' in done.stdout for command in cli.COMMANDS)


def test_unknown_subcommand(monkeypatch, capsys):
    assert call(monkeypatch, 'trian') == 2
    error = capsys.readouterr().err
    assert "'trian'" in error and all(command in error for command in cli.COMMANDS)


def test_as_a_module():
    command = [sys.executable, '-m', 'hybrid_backbones', '--version']
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f'hybrid-backbones {__version__}\n'


@pytest.mark.parametrize('command', [command for command in cli.COMMANDS if command != 'doctor'])
def test_tools_are_the_subcommands(command):
    tool = TOOLS / f'{RENAMED.get(command, command.replace("-", "_"))}.py'
    module = importlib.import_module(cli.COMMANDS[command][0], cli.__name__)
    assert runpy.run_path(str(tool))['main'] is module.main
