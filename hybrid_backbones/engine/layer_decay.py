"""Layer-wise learning-rate decay for any backbone of ours inside any detector or segmentor.

The recipe is BEiT's (arXiv 2106.08254) as ConvNeXt's detectors use it (arXiv 2201.03545). Their rule for stage 2,
`3 + block // 3`, suits ConvNeXt's depths only: deeper stages get ids above the heads'. Here the backbone says where a
parameter stands and blocks are spread evenly over the layers, so that the rate never falls from stem to head.
"""

from collections import defaultdict

from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

DECAY_TYPES = ('layer_wise', 'stage_wise')


def locate_backbone(model: nn.Module) -> tuple[str, nn.Module]:
    """The backbone of a detector or segmentor, with the prefix of its parameters' names.

    Raises:
        TypeError: The model has no module called `backbone`, or one that does not tell its layers' positions.
    """
    if hasattr(model, 'layer_position'):
        return '', model
    for name, module in model.named_modules():
        if name.split('.')[-1] != 'backbone':
            continue
        if hasattr(module, 'layer_position'):
            return name + '.', module
        raise TypeError(
            f'layer-wise decay needs a backbone of hybrid_backbones, which tells the depth of each parameter '
            f'(layer_position); {type(module).__name__} does not. Remove `constructor` and `paramwise_cfg` from '
            f'optim_wrapper, or choose another backbone'
        )
    raise TypeError(f'layer-wise decay: {type(model).__name__} has no module called `backbone`')


def layer_id(backbone: nn.Module, name: str, num_layers: int, decay_type: str) -> int:
    """Layer of the backbone's parameter `name`: 0 for the stem up to `num_layers + 1` for the output norms."""
    stage, depth = backbone.layer_position(name)
    if depth == 0:
        return 0
    if depth > backbone.num_blocks:
        return num_layers + 1
    if decay_type == 'stage_wise':
        return stage + 1
    return 1 + (depth - 1) * num_layers // backbone.num_blocks


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Learning rates that fall from the heads to the stem, and weight decay on matrices and kernels only.

    `paramwise_cfg` holds

    - `decay_rate`: factor between neighbouring layers; the lr of layer i is `lr * decay_rate ** (num_layers + 1 - i)`.
    - `num_layers`: layers that the blocks are spread over; stem is layer 0, neck and heads are `num_layers + 1`.
    - `decay_type`: `'layer_wise'` spreads the blocks evenly, `'stage_wise'` makes each stage, with its downsampling,
      one layer.

    Biases, one-dimensional parameters (norms, layer scale) and the backbone's `no_weight_decay` get no weight decay.
    """

    def _validate_cfg(self) -> None:
        expected = {'decay_rate', 'num_layers', 'decay_type'}
        given = set(self.paramwise_cfg)
        if not {'decay_rate', 'num_layers'} <= given <= expected:
            raise ValueError(f'paramwise_cfg takes {sorted(expected)}, got {sorted(given)}')
        if self.paramwise_cfg.get('decay_type', 'layer_wise') not in DECAY_TYPES:
            raise ValueError(f'decay_type must be one of {DECAY_TYPES}, got {self.paramwise_cfg["decay_type"]!r}')
        if not 0 < self.paramwise_cfg['decay_rate'] <= 1:
            raise ValueError(f'decay_rate must be in (0, 1], got {self.paramwise_cfg["decay_rate"]}')

    def add_params(self, params: list[dict], module: nn.Module, **kwargs) -> None:
        """Append the model's parameter groups to `params`, from stem to head; frozen parameters are left out."""
        if is_model_wrapper(module):
            module = module.module
        num_layers = self.paramwise_cfg['num_layers']
        decay_rate = self.paramwise_cfg['decay_rate']
        decay_type = self.paramwise_cfg.get('decay_type', 'layer_wise')
        prefix, backbone = locate_backbone(module)
        if decay_type == 'stage_wise' and num_layers < backbone.num_stages:
            raise ValueError(f'stage_wise decay over {backbone.num_stages} stages needs num_layers >= that many')

        without_decay = backbone.no_weight_decay  # of timm's networks, a search through all parameters
        groups = defaultdict(list)
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            layer, decays = num_layers + 1, param.ndim > 1 and not name.endswith('.bias')
            if name.startswith(prefix):
                layer = layer_id(backbone, name[len(prefix) :], num_layers, decay_type)
                decays = decays and name.split('.')[-1] not in without_decay
            groups[layer, decays].append(param)

        lines = [f'{decay_type} lr decay of {decay_rate} over {num_layers} layers:']
        for (layer, decays), members in sorted(groups.items()):
            lr_scale = decay_rate ** (num_layers + 1 - layer)
            weight_decay = self.base_wd if decays else 0.0
            name = f'layer_{layer}' + ('' if decays else '_no_decay')
            params.append(dict(params=members, lr=self.base_lr * lr_scale, weight_decay=weight_decay, name=name))
            size = sum(param.numel() for param in members) / 1e6
            lines.append(
                f'  {name:18} lr {self.base_lr * lr_scale:.3e} (x {lr_scale:.4f})  weight decay {weight_decay or 0:<6g}'
                f'  {len(members):4} tensors, {size:8.3f} M'
            )
        print_log('\n'.join(lines), logger='current')
