"""Comparison of a run's fingerprint with one that is computed again, elsewhere or later.

Parameters and MACs are equal everywhere. Losses and predictions depend on rounding, thus on the processor, threads and
versions. Training amplifies that: in detectors, which sample boxes, from less than 1e-6 in the first loss to 4e-4 in
the second, and to 10 or 20 % after ten iterations. So do the tolerances; the mean of the losses varies less.
Random numbers (dropped paths, sampled boxes) differ between kinds of devices: runs of a GPU are compared on a GPU.
"""

from collections.abc import Iterator
from statistics import fmean
from typing import Any

# Of the first loss, as a fraction of it; the factor from one iteration to the next; and the largest.
FIRST_LOSS = {'fp32': 2e-4, 'bf16': 1e-2, 'fp16': 1e-2}
GROWTH = 10
LARGEST = 0.4
# Of the mean of the losses, as a fraction of it.
MEAN_LOSS = 0.08
# Of a confidence, which is between 0 and 1.
CONFIDENCE = 0.15


def differences(found: dict[str, Any], recorded: dict[str, Any], precision: str = 'fp32') -> list[str]:
    """Where two fingerprints (of the schema `row_models.Fingerprint`) differ by more than the tolerances.

    Args:
        found: Computed again.
        recorded: Of the row.
        precision: Of the run: fp32, bf16 or fp16.
    """
    problems = [
        f'{name} are {found[name]:,}; the row has {recorded[name]:,}'
        for name in ('parameters', 'macs')
        if found[name] != recorded[name]
    ]
    if found['device'] != recorded['device']:
        return [*problems, f'losses are of a {recorded["device"]} device and cannot be compared on {found["device"]}']
    problems += _lengths(found, recorded)
    problems += _losses(found['losses'], recorded['losses'], precision)
    problems += _confidences(found['confidences'], recorded['confidences'])
    return problems


def _lengths(found: dict[str, Any], recorded: dict[str, Any]) -> Iterator[str]:
    for name in ('losses', 'confidences'):
        if len(found[name]) != len(recorded[name]):
            yield f'{len(found[name])} {name}; the row has {len(recorded[name])}'


def _losses(found: list[float], recorded: list[float], precision: str) -> Iterator[str]:
    for i, (new, old) in enumerate(zip(found, recorded, strict=False)):
        allowed = min(FIRST_LOSS[precision] * GROWTH**i, LARGEST)
        if not abs(new - old) <= allowed * abs(new):
            yield f'loss {i + 1} is {new:.6g}; the row has {old:.6g}, {allowed:.2%} are allowed'
    new, old = fmean(found), fmean(recorded)
    if not abs(new - old) <= MEAN_LOSS * abs(new):
        yield f'the mean of the losses is {new:.6g}; the row has {old:.6g}, {MEAN_LOSS:.2%} are allowed'


def _confidences(found: list[float], recorded: list[float]) -> Iterator[str]:
    for i, (new, old) in enumerate(zip(found, recorded, strict=False)):
        if not abs(new - old) <= CONFIDENCE:
            yield f'the confidence of image {i + 1} is {new:.4f}; the row has {old:.4f}, {CONFIDENCE} are allowed'
