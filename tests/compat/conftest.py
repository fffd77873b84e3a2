"""Interpreters that have not imported OpenMMLab: what `compat` does depends on what was imported before it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

# Imports what is slow and not of OpenMMLab, then forks a child for every program that it is sent.
NURSERY = """
import json, os, sys, traceback
import cv2, huggingface_hub, matplotlib.pyplot, pycocotools.mask, scipy.stats, timm, torch, torchvision
for line in sys.stdin:
    program = json.loads(line)
    if os.fork() == 0:
        for stream in (1, 2):
            os.dup2(os.open(program['files'][stream - 1], os.O_WRONLY | os.O_CREAT), stream)
        os.environ.update(program['environment'])
        sys.argv = ['-c', *program['args']]
        status = 0
        try:
            exec(program['code'], {'__name__': '__main__'})
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope='session')
def nursery() -> Iterator[subprocess.Popen]:
    with subprocess.Popen(
        [sys.executable, '-c', NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def fresh(nursery, tmp_path_factory) -> Callable[..., str]:
    """Run `code` in an interpreter of its own and return what it printed; it must not fail."""

    def run(code: str, *args: str, **environment: str) -> str:
        out, err = files = [tmp_path_factory.mktemp('fresh') / name for name in ('out', 'err')]
        program = dict(code=code, args=args, environment=environment, files=[str(file) for file in files])
        print(json.dumps(program), file=nursery.stdin, flush=True)
        status = int(nursery.stdout.readline())
        assert status == 0, err.read_text()
        return out.read_text()

    return run
