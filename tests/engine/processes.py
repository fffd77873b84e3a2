"""Several processes without the seconds that each interpreter takes to import torch.

They are forks of one server, which has imported and done nothing else: autograd, once used, does not outlive a fork.
"""

import importlib.util
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['hybrid_backbones', 'mmengine.runner'])


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def _work(output: Path, environment: dict[str, str], file: str, name: str, args: tuple) -> None:
    os.environ.update(environment)
    try:
        # By its file: pytest gives test modules names that cannot be imported elsewhere.
        spec = importlib.util.spec_from_file_location('work', file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        torch.save(dict(result=getattr(module, name)(*args)), output)
    except BaseException:
        torch.save(dict(failure=traceback.format_exc()), output)
    os._exit(0)  # without waiting for the other ranks


def run_forked(folder: Path, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Results of `function(*args)` in `count` processes, which find each other as those of torchrun do.

    Args:
        folder: Where the processes leave their results.
        count: How many they are.
        function: At the top of a file, by which the processes find it.
        args: What it is called with.

    Raises:
        AssertionError: One of them failed; the message is its traceback.
    """
    common = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE=str(count))
    outputs = [folder / f'rank_{rank}_of_{count}.pt' for rank in range(count)]
    processes = []
    for rank, output in enumerate(outputs):
        environment = common | dict(RANK=str(rank), LOCAL_RANK=str(rank))
        work = (output, environment, function.__code__.co_filename, function.__name__, args)
        processes.append(_context.Process(target=_work, args=work))
        processes[-1].start()
    for process in processes:
        process.join(180)
        process.kill()
    done = [torch.load(path, weights_only=False) if path.is_file() else {} for path in outputs]
    failures = [f'rank {rank}: {each.get("failure", "died")}' for rank, each in enumerate(done) if 'result' not in each]
    assert not failures, '\n'.join(failures)
    return [each['result'] for each in done]
