"""Published detectors and segmentors wherever a model is loaded: `load_from`, and the checkpoint of a test."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..backbones.pyramid import PyramidBackbone
from ..checkpoints.whole_models import with_model_names
from .model_checks import unwrap


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
