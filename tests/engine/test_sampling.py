"""Samples and iterations draw from seeds of their own, so that the place in the run decides, not its history."""

import random
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler, pseudo_collate
from torch.utils.data import DataLoader, Dataset

from hybrid_backbones.engine.sampling import ResumableBatchSampler, SeededIndex, seed_everything


class Noisy(Dataset):
    """Sample i with noise of every generator, as an augmentation draws it."""

    def __init__(self, size: int = 10) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple:
        assert type(index) is int
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def loader_of(sampler, num_workers: int = 0, **options) -> DataLoader:
    batches = ResumableBatchSampler(sampler, batch_size=3, **options)
    return DataLoader(sampler.dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=pseudo_collate)


def take(loader: DataLoader, count: int) -> list:
    iterator = iter(loader)
    return [next(iterator) for _ in range(count)]


def test_seed_everything_covers_all_generators():
    def draw(*words):
        seed_everything(*words)
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    assert draw(7, 1) == draw(7, 1)
    assert all(a != b for a, b in zip(draw(7, 1), draw(7, 2), strict=True))
    assert all(a != b for a, b in zip(draw(7, 1), draw(8, 1), strict=True))


@pytest.mark.parametrize('num_workers', [0, 2])
def test_augmentation_is_that_of_the_place(num_workers):
    """Neither the number of workers nor what was drawn before matters; position and epoch do."""
    sampler = DefaultSampler(Noisy(), seed=5)
    expected = take(loader_of(DefaultSampler(Noisy(), seed=5)), 4)
    torch.rand(3), random.random()
    assert take(loader_of(sampler, num_workers), 4) == expected

    sampler.set_epoch(1)
    second = take(loader_of(sampler, num_workers), 4)
    assert second != expected
    values = [value for epoch in (expected, second) for batch in epoch for value in batch[1]]
    assert len(set(values)) == len(values) == 20


@pytest.mark.parametrize('num_workers', [0, 1])
def test_skipped_batches(num_workers):
    full = take(loader_of(InfiniteSampler(Noisy(), seed=3)), 9)
    loader = loader_of(InfiniteSampler(Noisy(), seed=3), num_workers)
    take(loader, 1)  # begun, as MMEngine does before it resumes
    loader.batch_sampler.restart(seed=3, skip=5)
    assert take(loader, 4) == full[5:]


def test_skipped_batches_are_not_read():
    class Recording(Noisy):
        read: list[int] = []

        def __getitem__(self, index: int) -> tuple:
            self.read.append(index)
            return super().__getitem__(index)

    loader = loader_of(InfiniteSampler(Recording(), seed=3))
    loader.batch_sampler.restart(seed=3, skip=500)
    take(loader, 4)
    assert len(Recording.read) == 12


def test_finite_sampler_skips_whole_passes():
    reference = loader_of(DefaultSampler(Noisy(), seed=3))
    reference.batch_sampler.sampler.set_epoch(2)
    third_pass = take(reference, 4)
    loader = loader_of(DefaultSampler(Noisy(), seed=0))
    assert loader.batch_sampler.restart(seed=3, skip=9) == 2
    assert take(loader, 3) == third_pass[1:]


def test_grouping_by_another_batch_sampler():
    from mmengine.registry import DATA_SAMPLERS
    from torch.utils.data import BatchSampler

    class EvenFirst(BatchSampler):
        def __iter__(self):
            yield from sorted(super().__iter__(), key=lambda batch: batch[0] % 2)

    DATA_SAMPLERS.register_module(module=EvenFirst, force=True)
    sampler = DefaultSampler(Noisy(), shuffle=False, seed=1)
    batches = list(ResumableBatchSampler(sampler, batch_size=2, batch_sampler=dict(type='EvenFirst'), drop_last=True))
    assert batches == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert all(isinstance(index, SeededIndex) for batch in batches for index in batch)


class Wide(Noisy):
    """As mmdet's dataset tells AspectRatioBatchSampler: every third image is upright."""

    def get_data_info(self, index: int) -> dict:
        return dict(width=3, height=4 if index % 3 else 2)


def of_process(kind: type, rank: int, world_size: int, batch_size: int, **options) -> DataLoader:
    """The loader of one of several processes, which their samplers distinguish as in MMEngine."""
    with mock.patch('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world_size)):
        sampler = kind(Wide(11), seed=5)
    batches = ResumableBatchSampler(sampler, batch_size=batch_size, **options)
    return DataLoader(sampler.dataset, batch_sampler=batches, collate_fn=list)


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize('grouping', [None, dict(type='mmdet.AspectRatioBatchSampler')])
@pytest.mark.parametrize('processes', [2, 4])
def test_processes_share_the_batches_of_one(kind, grouping, processes):
    """Same images with the same augmentation in each iteration, and an incomplete last batch leaves nobody waiting."""
    options = dict(batch_sampler=grouping)
    count = 9 if kind is InfiniteSampler else 3  # an epoch of 11 is three batches of four
    whole = take(of_process(kind, 0, 1, 4, **options), count)
    shares = [take(of_process(kind, rank, processes, 4 // processes, **options), count) for rank in range(processes)]
    for batch, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert len({len(part) for part in parts}) == 1
        together = [sample for part in parts for sample in part]
        assert set(batch) <= set(together)
        assert len(batch) < 4 or len(set(together)) == 4
    for rank, share in enumerate(shares):
        loader = of_process(kind, rank, processes, 4 // processes, **options)
        loader.batch_sampler.restart(seed=5, skip=2)
        assert take(loader, count - 2) == share[2:]


@pytest.mark.parametrize('round_up', [True, False])
def test_processes_that_do_not_divide_the_data(round_up):
    lengths = []
    for rank in range(4):
        with mock.patch('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 4)):
            sampler = DefaultSampler(Noisy(9), seed=5, round_up=round_up)
        batches = list(ResumableBatchSampler(sampler, batch_size=2))
        assert len(ResumableBatchSampler(sampler, batch_size=8)) == len(batches)
        lengths.append([len(batch) for batch in batches])
    assert lengths == [[2, 1]] * 4
