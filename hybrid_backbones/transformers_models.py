"""Our backbones in transformers' DETR, Mask2Former and others that take an AutoBackbone: importing this registers them.

A config `HybridBackboneConfig(name='cvt_13', out_indices=[0, 1, 2, 3])` is a `backbone_config` of those models, and
`AutoBackbone.from_config` builds the backbone alone. For transformers 5.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from ._meta import meta_device
from .backbones.factory import create_backbone, find_backbone

# Those of the four levels, by which transformers chooses: strides 4, 8, 16 and 32.
STAGES = ['stage1', 'stage2', 'stage3', 'stage4']


class HybridBackboneConfig(BackboneConfigMixin, PreTrainedConfig):
    """A backbone by its name.

    Args:
        name: One of `list_backbones`.
        options: Of the backbone, over those that the name stands for.
        out_indices, out_features: The levels that are returned, from 0 or from `'stage1'`; by default the last.
    """

    model_type = 'hybrid_backbone'
    name: str = 'conv2former_t'
    options: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        find_backbone(self.name)
        self.stage_names = STAGES
        self.set_output_features_output_indices(
            out_indices=kwargs.pop('out_indices', None), out_features=kwargs.pop('out_features', None)
        )
        super().__post_init__(**kwargs)


class HybridBackbone(BackboneMixin, PreTrainedModel):
    """Feature maps of a backbone of ours, (N, 3, H, W) to (N, C_i, H / s_i, W / s_i).

    Weights: `load_pretrained(model.network, 'hybrid://NAME')`, or `from_pretrained` of what `save_pretrained` wrote.
    """

    config_class = HybridBackboneConfig
    main_input_name = 'pixel_values'
    has_attentions = False
    supports_gradient_checkpointing = False

    def __init__(self, config: HybridBackboneConfig) -> None:
        super().__init__(config)
        indices = [index % len(STAGES) for index in config.out_indices]
        self.network = create_backbone(config.name, **{**(config.options or {}), 'out_indices': indices})
        with meta_device():
            channels = create_backbone(config.name, **config.options or {}).out_channels
        self.num_features = list(channels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """The backbone has initialised itself."""

    def forward(self, pixel_values: Tensor, return_dict: bool | None = None, **_: Any) -> Any:
        maps = self.network(pixel_values)
        return BackboneOutput(feature_maps=maps) if return_dict in (None, True) else (maps,)


AutoConfig.register(HybridBackboneConfig.model_type, HybridBackboneConfig)
AutoBackbone.register(HybridBackboneConfig, HybridBackbone)
