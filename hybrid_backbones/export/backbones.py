"""A backbone as an exported program or an ONNX file, for batches of images of any size."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..backbones.pyramid import PyramidBackbone
from .programs import export_program, to_onnx


def export_backbone(backbone: PyramidBackbone, strict: bool = False) -> ExportedProgram:
    """A backbone in eval mode as a program from images (N, 3, H, W) to its maps.

    It holds for any number of images, and for any height and width that leave two pixels of the last map; less may be
    one pixel less (`range_constraints` of the program have it).

    Args:
        strict: As of :func:`~.programs.export_program`.

    Raises:
        ExportError: The backbone is in training mode, or asks about sizes, as attention within windows does.
    """
    # Two images, and sides of five and seven pixels of the coarsest map: nothing in it is one, or equal by accident.
    stride = max(32, *backbone.out_strides)
    parameter = next(backbone.parameters())
    image = torch.zeros(2, 3, 5 * stride, 7 * stride, dtype=parameter.dtype, device=parameter.device)
    return export_program(backbone, (image,), strict=strict)


def backbone_to_onnx(
    backbone: PyramidBackbone, path: str | Path, opset: int | None = None, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a backbone as an ONNX file with the input `image` and an output for each map, `map_0` of the finest.

    Args:
        opset, metadata: As of :func:`~.programs.to_onnx`.

    Raises:
        ExportError: See :func:`export_backbone` and :func:`~.programs.to_onnx`.
    """
    names = [f'map_{i}' for i in range(len(backbone.out_strides))]
    return to_onnx(export_backbone(backbone), path, ['image'], names, opset, metadata)
