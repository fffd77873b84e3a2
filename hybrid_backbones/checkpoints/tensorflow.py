"""Variables of a TensorFlow checkpoint, saved by name, in PyTorch's layout."""

from torch import Tensor

AVERAGE = '/ExponentialMovingAverage'


def convert_variables(state: dict[str, Tensor], scope: str) -> dict[str, Tensor]:
    """Weights of a network among the variables of a checkpoint; `state` itself where it has none.

    Args:
        state: Tensors by the names of the variables, in TensorFlow's layout or already in PyTorch's.
        scope: What the names of the network's variables begin with; others are an optimizer's.

    Returns:
        Tensors in PyTorch's layout by the same names, each averaged over training where the file has the average.
    """
    state = {key.removesuffix(':0'): value for key, value in state.items() if key.startswith(scope)} or state
    averages = {key.removesuffix(AVERAGE): value for key, value in state.items() if key.endswith(AVERAGE)}
    state = {key: value for key, value in state.items() if not key.endswith(AVERAGE)} | averages
    return {key: to_torch(key, value) for key, value in state.items()}


def to_torch(name: str, value: Tensor) -> Tensor:
    """The variable `name` in PyTorch's layout, which a variable that is already in it keeps.

    Kernels (h, w, in, out) and depthwise ones (h, w, C, 1) have their two small axes in front; projections to heads
    (in, heads, d), their biases (heads, d) and projections of heads (heads, d, out) an axis more than PyTorch's.
    """
    kind = name.rpartition('/')[2]
    if kind in ('kernel', 'depthwise_kernel') and value.shape[:2].numel() < value.shape[2:].numel():
        value = value.permute(3, 2, 0, 1) if kind == 'kernel' else value.permute(2, 3, 0, 1)
    elif kind == 'weight' and value.ndim == 3:
        value = (value.flatten(0, 1) if name.endswith('/o/weight') else value.flatten(1)).t()
    elif kind == 'bias' and value.ndim == 2:
        value = value.flatten()
    return value
