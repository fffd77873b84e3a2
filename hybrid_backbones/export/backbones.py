"""A backbone as an exported program or an ONNX file, for batches of images of any size."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import ExportedProgram

from ..backbones.pyramid import PyramidBackbone
from .programs import export_program, to_onnx


def export_backbone(backbone: PyramidBackbone, least: int = 64, strict: bool = False) -> ExportedProgram:
    """A backbone in eval mode as a program from images (N, 3, H, W) to its maps, for any N, H and W from `least` on.

    Args:
        least: Height and width in pixels from which the program is to hold. Two pixels of the last map are needed at
            least, 64 at stride 32; of attention within windows two windows of it, 448 for timm's Swin of 7x7.
        strict: As of :func:`~.programs.export_program`.

    Raises:
        ExportError: The backbone is in training mode, or would not be right for all these sizes.
    """
    parameter = next(backbone.parameters())
    # Two images, and sides that are neither equal nor, like their halves, so small that something in a map is one.
    image = torch.zeros(2, 3, 5 * least // 2, 7 * least // 2, dtype=parameter.dtype, device=parameter.device)
    return export_program(backbone, (image,), strict=strict)


def backbone_to_onnx(
    backbone: PyramidBackbone,
    path: str | Path,
    least: int = 64,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a backbone as an ONNX file with the input `image` and an output for each map, `map_0` of the finest.

    Args:
        least: As of :func:`export_backbone`.
        opset, metadata: As of :func:`~.programs.to_onnx`.

    Raises:
        ExportError: See :func:`export_backbone` and :func:`~.programs.to_onnx`.
    """
    names = [f'map_{i}' for i in range(len(backbone.out_strides))]
    return to_onnx(export_backbone(backbone, least), path, ['image'], names, opset, metadata)
