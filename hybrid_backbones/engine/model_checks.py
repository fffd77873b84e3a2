"""Checks between the parts of a model, and between a model and a checkpoint."""

from collections.abc import Iterable, Mapping

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from ..checkpoints.errors import WrongModelError


def unwrap(model: nn.Module) -> nn.Module:
    """The detector or segmentor within DDP and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_channels(model: nn.Module) -> None:
    """Compare the backbone's output channels with the input channels of the neck, or of the heads without a neck.

    Raises:
        ValueError: They differ; the message gives both and the line to write into the config.
    """
    model = unwrap(model)
    channels = getattr(getattr(model, 'backbone', None), 'out_channels', None)
    if not isinstance(channels, tuple):
        return
    neck = getattr(model, 'neck', None)
    if neck is not None:
        _compare(model.backbone, 'neck', getattr(neck, 'in_channels', None), channels)
        return
    for name in ('decode_head', 'auxiliary_head'):
        heads = getattr(model, name, None)
        for head in heads if isinstance(heads, nn.ModuleList) else [heads]:
            index = getattr(head, 'in_index', None)
            if index is None:
                continue
            wanted = [index] if isinstance(index, int) else list(index)
            if max(wanted) >= len(channels):
                raise ValueError(f'{name}.in_index={index}, but the backbone has {len(channels)} outputs: {channels}')
            _compare(model.backbone, name, head.in_channels, tuple(channels[i] for i in wanted))


def _compare(backbone: nn.Module, part: str, given: int | Iterable[int] | None, expected: tuple[int, ...]) -> None:
    if given is None or _as_tuple(given) == expected:
        return
    fix = expected[0] if isinstance(given, int) else list(expected)
    raise ValueError(
        f'model.{part}.in_channels is {given}, but {type(backbone).__name__} puts out {expected} channels: '
        f'write {part}=dict(in_channels={fix}) into the config'
    )


def _as_tuple(value: int | Iterable[int]) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def check_state_dict(
    model: nn.Module, state_dict: Mapping[str, Tensor], source: str, unused: tuple[str, ...] = ()
) -> None:
    """Require that a checkpoint holds exactly this model's weights.

    Args:
        model: The model to be loaded into.
        state_dict: What the checkpoint holds, with or without DDP's `module.` prefix.
        source: The checkpoint's name, for the message.
        unused: Prefixes of entries that may be left over.

    Raises:
        WrongModelError: Something is missing, left over or of another shape.
    """
    state_dict = {key.removeprefix('module.'): value for key, value in state_dict.items()}
    state_dict = {key: value for key, value in state_dict.items() if not key.startswith(unused)}
    if text := differences(model, state_dict, source):
        raise WrongModelError(
            f'{text}\nGive the config that the checkpoint was trained with; it lies beside it in the work directory'
        )


def differences(model: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> str:
    """In what the tensors of the checkpoint `source` differ from those of the model; '' if in nothing."""
    theirs = {key: tuple(value.shape) for key, value in state_dict.items()}
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    missing = [key for key in ours if key not in theirs]
    left_over = [key for key in theirs if key not in ours]
    differing = [
        f'{key} {theirs[key]} against {ours[key]}' for key in ours if key in theirs and theirs[key] != ours[key]
    ]
    if not (missing or left_over or differing):
        return ''
    matched = len(ours) - len(missing) - len(differing)
    backbone = type(getattr(model, 'backbone', None)).__name__
    return (
        f'{source} is a checkpoint of another model than the config builds ({type(model).__name__} with {backbone}): '
        f'{matched} of {len(ours)} entries match'
        + _listing('the config has and the checkpoint lacks', missing)
        + _listing('the checkpoint has and the config lacks', left_over)
        + _listing('of other shape (checkpoint against config)', differing)
    )


def _listing(what: str, entries: list[str], limit: int = 4) -> str:
    if not entries:
        return ''
    more = f', ... ({len(entries)} in all)' if len(entries) > limit else ''
    return f'\n  {what}: {", ".join(entries[:limit])}{more}'
