"""The trained model of a config, to be used rather than trained or evaluated."""

from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import CheckpointLoader
from torch import nn

from .loading import choose_part
from .model_checks import check_state_dict
from .published_models import local_model


def locate_model(checkpoint: str | Path) -> str:
    """File or URL of a checkpoint given as such or as `hybrid://NAME`.

    Raises:
        FileNotFoundError: No such file.
    """
    located = local_model(str(checkpoint))
    if not located.startswith(('http://', 'https://')) and not Path(located).is_file():
        raise FileNotFoundError(f'no checkpoint {located}')
    return located


def load_trained(cfg: Config, checkpoint: str | Path) -> tuple[nn.Module, list[str] | None]:
    """The config's model with the weights of a file, on the CPU in eval mode; and the classes that the file names.

    Args:
        cfg: Config of ours, mmdet or mmseg.
        checkpoint: Of that config's model, as :func:`locate_model` takes it.

    Raises:
        CheckpointError: The file is of another model, or holds NaN or infinity.
        FileNotFoundError: No such file.
    """
    checkpoint = locate_model(checkpoint)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    state = choose_part(content, model, checkpoint, cfg.get('load_part')).state
    check_state_dict(model, state, checkpoint)
    model.load_state_dict(state)
    named = ((content.get('meta') or {}).get('dataset_meta') or {}).get('classes')
    return model.eval(), list(named) if named else None
