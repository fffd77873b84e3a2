"""Published detectors and segmentors wherever a model is loaded: `load_from`, and the checkpoint of a test."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..backbones.pyramid import PyramidBackbone
from ..checkpoints.published import locate
from ..checkpoints.sources import SCHEME
from ..checkpoints.whole_models import with_model_names
from .model_checks import unwrap


def local_model(checkpoint: str) -> str:
    """Path of `hybrid://NAME`, downloaded if need be; any other checkpoint as it is.

    Raises:
        CheckpointError: The file is not to be had; where to put it.
    """
    return str(locate(checkpoint.removeprefix(SCHEME))) if checkpoint.startswith(SCHEME) else checkpoint


@HOOKS.register_module()
class PublishedNamesHook(Hook):
    """Give the tensors of a published detector or segmentor the names of the model, before anything compares them."""

    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        backbone = getattr(unwrap(runner.model), 'backbone', None)
        state = checkpoint.get('state_dict', checkpoint)
        if isinstance(backbone, PyramidBackbone):
            plain = {key.removeprefix('module.'): value for key, value in state.items()}
            renamed = with_model_names(backbone, plain, str(runner._load_from))
            state.clear()
            state.update(renamed)
