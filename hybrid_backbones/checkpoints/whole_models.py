"""Published detectors and segmentors: their backbones' tensors under the names used here, their heads' as they are.

mmdet 2 and 3, and mmseg 0 and 1, name heads, necks and proposal networks alike; only backbones differ.
"""

import re

from torch import Tensor

from .errors import CheckpointError
from .loading import Loadable, with_own_names

_PREFIX = 'backbone.'


def with_model_names(backbone: Loadable, state: dict[str, Tensor], source: str = 'the file') -> dict[str, Tensor]:
    """Tensors of a detector's or segmentor's file of any publisher under the names of a model with this `backbone`.

    Args:
        backbone: That of the model that the tensors are for, as `model.backbone`.
        state: Tensors by key, those of the backbone behind `backbone.`. A file without any is returned as it is, and so
            is one of this package.
        source: Its name, for the message.

    Returns:
        The same tensors; those of the backbone renamed, and without what it does not have in a detector.

    Raises:
        CheckpointError: The file has the trunk but not the output norms of `backbone`, which would stay at their
            initial values; or it is one that the backbone's family refuses.
    """
    own = backbone.state_dict()
    theirs = {key.removeprefix(_PREFIX): value for key, value in state.items() if key.startswith(_PREFIX)}
    if not theirs or own.keys() <= theirs.keys():
        return state
    renamed = with_own_names(backbone, theirs)
    ignored = re.compile('|'.join(backbone.checkpoint_ignores) or r'(?!)')
    renamed = {key: value for key, value in renamed.items() if key in own or not ignored.match(key)}
    _check_output_norms(backbone, renamed, own, source)
    rest = {key: value for key, value in state.items() if not key.startswith(_PREFIX)}
    return {_PREFIX + key: value for key, value in renamed.items()} | rest


def _check_output_norms(backbone: Loadable, renamed: dict[str, Tensor], own: dict[str, Tensor], source: str) -> None:
    """Refuse a file of the right trunk whose maps are not those that the model's heads were trained on."""
    missing = [
        key
        for key in own
        if key.startswith(backbone.dense_only_prefixes)
        and key not in renamed
        and not key.endswith('num_batches_tracked')
    ]
    if missing and renamed.keys() & own.keys():
        raise CheckpointError(
            f'{source} has no {", ".join(missing[:4])}{", ..." if len(missing) > 4 else ""}, which stand between the '
            f'trunk and the maps of this {type(backbone).__name__}: they would stay at their initial values, and the '
            "heads would get other maps than in training. A classifier's file belongs into model.backbone.init_cfg; "
            'for a detector or segmentor without output norms set model.backbone.out_norm=False'
        )
