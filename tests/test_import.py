"""`import hybrid_backbones` is light and silent."""

import subprocess
import sys

HEAVY = ('mmcv', 'mmdet', 'mmseg', 'timm', 'torchvision', 'pycocotools', 'matplotlib', 'scipy')


def test_import_is_light_and_silent():
    code = f'import sys, hybrid_backbones; print([name for name in {HEAVY} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-W', 'default', '-c', code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '[]\n', '')
