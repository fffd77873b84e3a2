"""Gradients laid out in memory as their parameters, which DistributedDataParallel's buckets are."""

from torch import nn


def keep_gradient_layout(network: nn.Module) -> None:
    """Give the gradients of `network` the strides of its parameters also along axes of length one.

    Autograd takes any stride along such an axis, and DistributedDataParallel warns of each that is not the parameter's
    (pytorch#47163): of 1x1 and depthwise convolutions after `.to(memory_format=torch.channels_last)`, for example.
    Copies of a network do not have it.
    """
    for parameter in network.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_post_accumulate_grad_hook(_restride)


def _restride(parameter: nn.Parameter) -> None:
    grad, strides = parameter.grad, parameter.stride()
    # Only names for the same memory: autograd has copied what differs along other axes.
    if grad.layout is parameter.layout and grad.stride() != strides:
        parameter.grad = grad.as_strided(grad.shape, strides)
