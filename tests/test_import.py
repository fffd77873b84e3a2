"""`import hybrid_backbones` is light and silent, and what is installed is complete."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

HEAVY = ('mmcv', 'mmdet', 'mmseg', 'timm', 'torchvision', 'pycocotools', 'matplotlib', 'scipy')


def test_import_is_light_and_silent():
    code = f'import sys, hybrid_backbones; print([name for name in {HEAVY} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-W', 'default', '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '[]\n', '')


def test_tables_and_templates_are_installed_with_the_code(tmp_path):
    command = [sys.executable, 'setup.py', 'egg_info', '--egg-base', tmp_path, 'build_py', '--build-lib', tmp_path]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    files = {path.relative_to(ROOT) for path in (ROOT / 'hybrid_backbones').rglob('*') if path.is_file()}
    assert Path('hybrid_backbones/checkpoints/published.json') in files
    installed = {path.relative_to(tmp_path) for path in tmp_path.rglob('*')}
    assert not {path for path in files - installed if '__pycache__' not in path.parts}
