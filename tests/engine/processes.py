"""Several processes without the seconds that each interpreter takes to import torch: forks of this one."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def free_port() -> int:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return server.getsockname()[1]


def run_forked(folder: Path, count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Results of `function(*args)` in `count` processes, which find each other as those of torchrun do.

    Raises:
        AssertionError: One of them failed; the message is its traceback.
    """
    environment = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), WORLD_SIZE=str(count))
    context = multiprocessing.get_context('fork')
    outputs = [folder / f'rank_{rank}_of_{count}.pt' for rank in range(count)]

    def work(rank: int) -> None:
        os.environ.update(environment, RANK=str(rank), LOCAL_RANK=str(rank))
        try:
            torch.save(dict(result=function(*args)), outputs[rank])
        except BaseException:
            torch.save(dict(failure=traceback.format_exc()), outputs[rank])
        os._exit(0)  # nothing of the parent's is to be torn down here

    processes = [context.Process(target=work, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    done = [torch.load(path, weights_only=False) if path.is_file() else {} for path in outputs]
    failures = [f'rank {rank}: {each.get("failure", "died")}' for rank, each in enumerate(done) if 'result' not in each]
    assert not failures, '\n'.join(failures)
    return [each['result'] for each in done]
