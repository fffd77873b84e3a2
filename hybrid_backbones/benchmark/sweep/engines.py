"""Who does the jobs of a sweep: this machine, a Ray cluster, or Slurm."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

from .running import execute
from .spec import Job

Done = tuple[Job, str]


def _need(package: str, extra: str) -> Any:
    """Import a package of an extra.

    Raises:
        ModuleNotFoundError: It is not installed; how to.
    """
    try:
        return __import__(package)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{package} is not installed: pip install 'hybrid_backbones[{extra}]'") from error


def local(results: Path, jobs: Sequence[Job], slots: int, threads: int | None = None) -> Iterator[Done]:
    """Jobs and how they ended, as they end; `slots` at a time on this machine, which share its cores.

    Ctrl-C ends the jobs that are running; each of them has become a row when this raises KeyboardInterrupt.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()  # Linux knows limits
    threads = threads or max(1, cores // slots)
    stop = Event()
    with ThreadPoolExecutor(slots) as pool:
        futures = {pool.submit(execute, results, job, threads, stop): job for job in jobs}
        try:
            waiting = set(futures)
            while waiting:
                ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield futures[future], future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def ray(
    results: Path, jobs: Sequence[Job], slots: int, threads: int | None = None, address: str | None = None
) -> Iterator[Done]:
    """The same on a Ray cluster that sees `results`; a job whose worker dies is done again by another.

    Args:
        slots: Jobs at a time, in the whole cluster.
        threads: Of a job, 1 unless given.
        address: Of the cluster, as `ray.init` takes it; None: one on this machine, for this sweep alone.
    """
    ray = _need('ray', 'ray')
    threads = threads or 1
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    alone = {} if address else dict(num_cpus=slots * threads, include_dashboard=False)
    ray.init(address=address, log_to_driver=False, **alone)
    try:
        remote = ray.remote(execute).options(num_cpus=threads, max_retries=3)
        waiting: dict[Any, Job] = {}
        left = list(jobs)
        while left or waiting:
            while left and len(waiting) < slots:
                job = left.pop(0)
                waiting[remote.remote(results.resolve(), job, threads)] = job
            ended, _ = ray.wait(list(waiting))
            for reference in ended:
                yield waiting.pop(reference), ray.get(reference)
    finally:
        ray.shutdown()


def slurm(
    results: Path,
    jobs: Sequence[Job],
    slots: int,
    threads: int | None = None,
    cluster: str | None = None,
    **parameters: Any,
) -> Iterator[Done]:
    """The same as a Slurm array, `slots` of it at a time, through submitit.

    Args:
        threads: Of a job, 1 unless given.
        cluster: submitit's; `local` tries the whole way on this machine.
        **parameters: Of submitit: slurm_partition='gpu', gpus_per_node=1, timeout_min=1440, mem_gb=64, ...
    """
    submitit = _need('submitit', 'slurm')
    executor = submitit.AutoExecutor(results.resolve() / 'slurm', cluster=cluster)
    threads = threads or 1
    executor.update_parameters(
        name='transfer', cpus_per_task=threads, slurm_array_parallelism=slots, **dict(timeout_min=1440) | parameters
    )
    n = len(jobs)
    handles = executor.map_array(execute, [results.resolve()] * n, jobs, [threads] * n)
    by_id = {handle.job_id: job for handle, job in zip(handles, jobs, strict=True)}
    for handle in submitit.helpers.as_completed(handles, poll_frequency=2):
        yield by_id[handle.job_id], handle.result()


ENGINES = dict(local=local, ray=ray, slurm=slurm)
