"""Where the jobs of a sweep run: on this machine, a Ray cluster, or Slurm.

`local` and `ray` take jobs from the front of their list as slots become free. The list may be changed between two
results, as a race does; a Slurm array is submitted as a whole.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

from ..._extras import require
from .jobs import Job
from .running import execute

# A job, and how it ended: see `running.execute`.
Done = tuple[Job, str]


def local(results: Path, jobs: list[Job], slots: int, threads: int | None = None) -> Iterator[Done]:
    """Run jobs on this machine, `slots` at a time, sharing its cores; yields each as it ends.

    Ctrl-C ends the running jobs; each of them has its row by the time this raises KeyboardInterrupt.
    """
    # On Linux this respects the limits of the process.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    threads = threads or max(1, cores // slots)
    stop = Event()
    waiting: dict[Future, Job] = {}
    with ThreadPoolExecutor(slots) as pool:
        try:
            while jobs or waiting:
                while jobs and len(waiting) < slots:
                    job = jobs.pop(0)
                    waiting[pool.submit(execute, results, job, threads, stop)] = job
                ended, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ended:
                    yield waiting.pop(future), future.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def ray(
    results: Path, jobs: list[Job], slots: int, threads: int | None = None, address: str | None = None
) -> Iterator[Done]:
    """Run jobs on a Ray cluster whose machines all see `results`; a job whose worker dies is repeated by another.

    Args:
        slots: Number of concurrent jobs in the whole cluster.
        threads: Threads of a job, 1 unless given.
        address: Address of the cluster for `ray.init`; None starts one on this machine, for this sweep alone.
    """
    require('ray', 'ray')
    import ray

    threads = threads or 1
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    local_cluster = {} if address else dict(num_cpus=slots * threads, include_dashboard=False)
    ray.init(address=address, log_to_driver=False, **local_cluster)
    try:
        remote = ray.remote(execute).options(num_cpus=threads, max_retries=3)
        waiting: dict[Any, Job] = {}
        while jobs or waiting:
            while jobs and len(waiting) < slots:
                job = jobs.pop(0)
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
    """Run jobs as a Slurm array, `slots` at a time, through submitit.

    Args:
        threads: Threads of a job, 1 unless given.
        cluster: submitit's executor; `local` runs without Slurm, on this machine.
        **parameters: submitit's: slurm_partition='gpu', gpus_per_node=1, timeout_min=1440, mem_gb=64, ...
    """
    require('slurm', 'submitit')
    import submitit

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
