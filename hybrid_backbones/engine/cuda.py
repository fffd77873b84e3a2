"""Settings of PyTorch for runs on NVIDIA GPUs, of the whole process."""

import torch
from mmengine.logging import print_log


def prepare_cuda(fp32: str = 'tf32', cudnn_attention: bool = False) -> None:
    """Set how fp32 products and attention are computed; does nothing without a GPU.

    cuDNN's attention builds a plan for every shape (pytorch#155958;
    a training of varying shapes spent most of its time there, modelscope/FunASR#3705).
    Multi-scale detection has hundreds of shapes; PyTorch's flash and memory-efficient kernels take any.

    Args:
        fp32: `tf32`, TF32 in matrix products as PyTorch has it in convolutions by default, or `strict`, PyTorch's
            settings as they are: many 1x1 convolutions are matrix products here.
        cudnn_attention: Whether PyTorch may choose cuDNN's attention.

    Raises:
        ValueError: No such setting.
    """
    if fp32 not in ('tf32', 'strict'):
        raise ValueError(f"fp32={fp32!r}: expected 'tf32' or 'strict'")
    if not torch.cuda.is_available():
        return
    if fp32 == 'tf32':
        torch.set_float32_matmul_precision('high')
        print_log('Matrix products of fp32 use TF32, as convolutions do (--fp32 strict leaves them)')
    if not cudnn_attention:
        torch.backends.cuda.enable_cudnn_sdp(False)
        print_log("cuDNN's attention is off: it builds a plan for every image size (--cudnn-attention leaves it on)")


def lacks_bf16_attention() -> str | None:
    """A warning where the GPU has no fused attention in bf16, which needs compute capability 8.0; None elsewhere."""
    major, minor = torch.cuda.get_device_capability()
    if major >= 8:
        return None
    return (
        f'{torch.cuda.get_device_name()} (compute capability {major}.{minor}) has no fused attention in bf16: '
        'the matrix of all pairs is laid out, which takes memory with the square of the pixels. Use fp16 (--amp fp16)'
    )
