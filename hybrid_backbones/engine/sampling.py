"""Data and randomness as functions of the seed and the position in the run, not of the run's history.

MMEngine saves weights, optimizer and schedules, but neither the state of random number generators nor the position in
the data. Here every sample and every iteration draws from its own seed, so that nothing needs to be saved: a run that
is resumed repeats the unbroken one, whatever the number of data workers. Batches are put together before they are
shared among processes, so that several processes see what one sees with a batch as large as theirs together.
"""

import random
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS, HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import BatchSampler, Dataset, Sampler

# Keep the streams of samples and of iterations apart.
_SAMPLE, _ITERATION = 0, 1


def seed_everything(*words: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators from non-negative integers; same words, same draws."""
    short, long = np.random.SeedSequence(words).generate_state(2, np.uint64)
    random.seed(int(long))
    np.random.seed(int(short) % 2**32)  # noqa: NPY002  (OpenMMLab's pipelines draw from the global stream)
    torch.manual_seed(int(long) % 2**63)


def seed_iteration(runner: Runner) -> None:
    """Seed what the current iteration draws in this process, such as dropped paths and sampled RoIs."""
    seed_everything(runner.seed, _ITERATION, runner.iter, get_rank())


class SeededIndex(int):
    """Index of a sample, with the words that seed its augmentation."""

    words: tuple[int, ...]

    def __new__(cls, index: int, words: tuple[int, ...] = ()) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.words = words
        return self


class _Fetch:
    """Reads a batch of samples, each from its own seed. A class, because data workers may have to pickle it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> list[Any]:
        return [self._fetch(index) for index in indices]

    def _fetch(self, index: int) -> Any:
        if isinstance(index, SeededIndex):
            seed_everything(*index.words)
        return self.dataset[int(index)]


class _SeededSampler(Sampler):
    """Gives each index of `sampler` the seed of its place in the run; processes differ in their `stream`."""

    def __init__(self, sampler: Sampler, stream: int) -> None:
        self.sampler = sampler
        self.dataset = sampler.dataset
        self.stream = stream

    def __iter__(self) -> Iterator[SeededIndex]:
        seed, epoch = getattr(self.sampler, 'seed', 0), getattr(self.sampler, 'epoch', 0)
        for position, index in enumerate(self.sampler):
            yield SeededIndex(index, (seed, _SAMPLE, epoch, position, self.stream))

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        self.sampler.set_epoch(epoch)


def _use_indices_of_all_processes(sampler: Sampler) -> None:
    """Make MMEngine's sampler give the indices of all processes, in the order in which it distributes them."""
    sampler.rank, sampler.world_size = 0, 1
    if isinstance(sampler, InfiniteSampler):
        sampler.indices = sampler._indices_of_rank()
    else:
        sampler.num_samples = sampler.total_size


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler:
    """Batches whose augmentation depends on the seed and their place in the run only, and which can be skipped.

    The indices of all processes are grouped into common batches, of which each process takes its part: how many
    processes there are changes neither the images of an iteration nor their augmentation. A common batch that the
    processes cannot share evenly, as the last of a pass may be, is filled up with its first images, or else a process
    without an image would leave the others waiting. Samplers other than MMEngine's two deal out their own indices.

    Args:
        sampler: Sampler of indices, built by MMEngine.
        batch_size: Samples in a batch of this process.
        batch_sampler: Config of the batch sampler to group the indices with; None for consecutive ones.
        drop_last: Leave out an incomplete last batch.
    """

    def __init__(
        self, sampler: Sampler, batch_size: int, batch_sampler: dict | None = None, drop_last: bool = False
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._grouping = batch_sampler
        self._rank, self._world_size, self._stream = 0, 1, get_rank()
        if isinstance(sampler, (DefaultSampler, InfiniteSampler)):
            self._rank, self._world_size, self._stream = sampler.rank, sampler.world_size, 0
            _use_indices_of_all_processes(sampler)
        self._batches = self._group()
        self._skip = 0
        # PyTorch's protocol for fetching a batch at once, honoured wherever the data are read.
        sampler.dataset.__getitems__ = _Fetch(sampler.dataset)

    def _group(self) -> BatchSampler:
        seeded = _SeededSampler(self.sampler, self._stream)
        arguments = dict(sampler=seeded, batch_size=self.batch_size * self._world_size, drop_last=self.drop_last)
        if self._grouping is None:
            return BatchSampler(**arguments)
        return DATA_SAMPLERS.build(self._grouping, default_args=arguments)

    def restart(self, seed: int, skip: int = 0) -> int:
        """Start again with `seed`, without the first `skip` batches, whose data are not read.

        Returns:
            Number of passes over the data that were skipped as a whole.
        """
        self.sampler.seed = seed
        passes, self._skip = divmod(skip, len(self))
        if isinstance(self.sampler, InfiniteSampler):  # one endless pass, which may have begun
            passes, self._skip = 0, skip
            self.sampler.indices = self.sampler._indices_of_rank()
        self.sampler.set_epoch(passes)
        self._batches = self._group()
        return passes

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: the data loader makes two iterators and uses one, which alone may take the skip.
        skip, self._skip = self._skip, 0
        for batch in islice(self._batches, skip, None):
            missing = -len(batch) % self._world_size
            yield list(islice(cycle(batch), self._rank, len(batch) + missing, self._world_size))

    def __len__(self) -> int:
        return len(self._batches)


class _Skipped:
    """Iterator that is already where training resumes.

    MMEngine's loop then takes `count` values and drops them, which are None here; onedl-mmengine's calls `skip_iter`.
    """

    def __init__(self, count: int, iterator: Iterator) -> None:
        self.count = 0 if hasattr(iterator, 'skip_iter') else count
        self.iterator = iterator

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: the batches are skipped already."""

    def __next__(self) -> Any:
        if self.count > 0:
            self.count -= 1
            return None
        return next(self.iterator)


@HOOKS.register_module()
class ReproducibleRunHook(Hook):
    """Make a resumed run equal an unbroken one: same seed, same data, same dropped paths, same sampled RoIs.

    The data part needs :class:`ResumableBatchSampler` in `train_dataloader`; without it only the iterations are seeded.
    """

    # After MMEngine's own hook, which sets the sampler's epoch.
    priority = 'LOW'

    def before_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        batches = loop.dataloader.batch_sampler
        if runner.iter == 0 or not isinstance(batches, ResumableBatchSampler):
            return
        if not isinstance(loop, IterBasedTrainLoop):
            batches.sampler.seed = runner.seed  # the checkpoint's; the sampler was built before that was read
            return
        # The loop began to read data when it was built, before it knew where to resume.
        loop.dataloader._iterator = None
        passes = batches.restart(runner.seed, skip=runner.iter)
        iterator = _InfiniteDataloaderIterator(loop.dataloader)
        iterator._epoch = passes
        loop.dataloader_iterator = _Skipped(runner.iter, iterator)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_iteration(runner)
