"""Operators of PyTorch that its ONNX exporter lacks, written in ONNX's; for `custom_translation_table`."""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18 as ops


def _stable_sort(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """ONNX's TopK takes equal values in the order of their places: it is stable by definition."""
    length = ops.Shape(values, start=dim, end=dim + 1 or None)
    return ops.TopK(values, length, axis=dim, largest=int(descending), sorted=1)


TRANSLATIONS: dict[Callable, Callable] = {torch.ops.aten.sort.stable: _stable_sort}
