"""The contract of every backbone: an image of any size in, feature maps at several strides out."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..checkpoints import KeyLayout, load_pretrained
from ..layers.checkpointing import forward_and_recomputation
from ..layers.inference import has_hooks
from ..layers.kept import forget_kept
from ..layers.layout import keep_gradient_layout
from ..layers.packed import forget
from ..layers.recompute import without_recomputation
from ._attention_inputs import Reader


class PyramidBackbone(BaseModule):
    """A trunk of stages, each followed, where `out_indices` asks for it, by an output norm.

    A family builds its trunk, calls :meth:`finish` at the end of its constructor, and implements
    the abstract methods below and :meth:`forward_stage` or :meth:`maps`. Stages after the last of
    `out_indices` are not built, so that distributed training never meets an unused parameter.

    Options of every backbone:

    - `out_indices`: Levels whose maps are returned, ascending; 0 to 3 for strides 4, 8, 16 and 32.
    - `drop_path_rate`: Stochastic depth of the last block, at least 0 and less than 1; grows linearly from 0 over all
      blocks.
    - `frozen_stages`: -1 freezes nothing, 0 the stem, k the stem and the first k stages: no gradient, eval mode.
    - `norm_eval`: Keep BatchNorm statistics fixed during training.
    - `with_cp`: Recompute blocks in the backward pass instead of keeping their activations.
    - `out_norm`: LayerNorm over the channels of every returned map, which no published file has.
    - `init_cfg`: MMEngine's; `dict(type='Pretrained', checkpoint=...)` takes the authors' files, and any other that
      :func:`hybrid_backbones.checkpoints.load_pretrained` reads.

    Args:
        stage_channels: Channels of every stage of the architecture.
        stage_strides: Stride of every stage's map to the image.
        out_indices, frozen_stages, norm_eval, with_cp, init_cfg: The options.
        num_stages: Stages to build, where not those up to the last of `out_indices`.

    Raises:
        ValueError: `out_indices` or `frozen_stages` outside the architecture.
    """

    # Last parts of parameter names that never get weight decay although they have two or more dimensions.
    no_weight_decay: tuple[str, ...] = ()
    # Layouts of files whose names are not the authors', by publisher.
    checkpoint_layouts: Mapping[str, KeyLayout] = {}
    # Keys of published files: how to rename them, as (pattern, replacement) for re.sub, and patterns of those that a
    # backbone does not use.
    checkpoint_renames: tuple[tuple[str, str], ...] = ()
    checkpoint_ignores: tuple[str, ...] = ()
    # Prefixes of parameters that only dense prediction needs, and that no published file has.
    dense_only_prefixes: tuple[str, ...] = ('out_norms.',)
    # Those of them behind the trunk, which learn at the heads' rate.
    head_lr_prefixes: tuple[str, ...] = ('out_norms.',)
    # Mean and deviation of the RGB images, from 0 to 255, that published weights were trained on: ImageNet's.
    image_mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    image_std: tuple[float, ...] = (58.395, 57.12, 57.375)
    # Option that chooses which maps are returned.
    output_option = 'out_indices'
    # Blocks of every stage that is built.
    depths: tuple[int, ...]
    # Options under which the trunk is the authors' classifier without its head.
    classifier_options: dict[str, Any] = dict(out_norm=False)
    # Multiply-adds of a forward pass as the paper writes it, of layers whose algebra here is another: by the layer's
    # class, (layer, its inputs, its output) -> number.
    textbook_macs: Mapping[type[nn.Module], Callable[[nn.Module, tuple, Any], int]] = {}
    # What attention layers compute with: by the layer's class, (layer, *its inputs) -> AttentionInputs. Empty where
    # there is no attention.
    attention_readers: Mapping[type[nn.Module], Reader] = {}
    # For tests: an arch of a few thousand parameters in which every kind of layer appears.
    tiny_arch: str | dict[str, Any] | None = None
    # For tests: BatchNorm over the few similar pixels of a small map magnifies rounding, which is compared with fixed
    # statistics instead.
    magnifies_rounding = False

    def __init__(
        self,
        stage_channels: Sequence[int],
        stage_strides: Sequence[int],
        out_indices: Sequence[int],
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
        num_stages: int | None = None,
    ) -> None:
        super().__init__(init_cfg)
        out_indices = self.check_ascending('out_indices', out_indices, len(stage_channels))
        self.num_stages = num_stages or out_indices[-1] + 1
        if frozen_stages not in range(-1, self.num_stages + 1):
            raise ValueError(
                f'frozen_stages={frozen_stages} of {type(self).__name__}: expected -1 (none), 0 (the stem) '
                f'or the number of stages to freeze, up to {self.num_stages}'
            )
        self.out_indices = out_indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.out_channels = tuple(stage_channels[i] for i in out_indices)
        self.out_strides = tuple(stage_strides[i] for i in out_indices)

    # What a family defines.

    @staticmethod
    def convert_checkpoint(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of a file before their keys are renamed, where published ones differ in more than names."""
        return state

    def checkpoint_advice(self, state: dict[str, Tensor]) -> str:
        """What to do about a file that does not fit, as the end of the error; `state` has its renamed tensors."""
        return 'Give the arch that the file was made for, or the file of this arch.'

    @staticmethod
    def implied_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        """Options other than the defaults that the keys and shapes of a published file show."""
        return {}

    @property
    def unread_by_head(self) -> tuple[str, ...]:
        """Prefixes of the trunk's parameters that change maps but not the features of the classification head."""
        return ()

    @property
    @abstractmethod
    def min_size(self) -> int:
        """Smallest height and width in pixels that leave one pixel of the last map."""

    def forward_stage(self, x: Tensor, index: int) -> Tensor:
        """Run stage `index`, with the stem or downsampling layer in front of it, on (N, C, H, W)."""
        raise NotImplementedError(f'{type(self).__name__} must implement forward_stage or override maps')

    @abstractmethod
    def stage_modules(self, index: int) -> list[nn.Module]:
        """Modules of stage `index` with its downsampling layer; those of the stem for -1."""

    @abstractmethod
    def block_of(self, name: str) -> tuple[int, int]:
        """Stage and block, from 0 within it, of the trunk's parameter `name`; (-1, 0) for the stem.

        A downsampling layer belongs to the block behind it.
        """

    @abstractmethod
    def build_head(self, num_classes: int) -> nn.Module:
        """The authors' classification head, from :meth:`head_features` to logits; its children carry their names."""

    # What all families inherit.

    @property
    def num_blocks(self) -> int:
        """Blocks of the trunk, the depth that :meth:`layer_position` counts to."""
        return sum(self.depths)

    def layer_position(self, name: str) -> tuple[int, int]:
        """Stage and depth of the parameter `name`, for layer-wise learning rates.

        Returns:
            (-1, 0) for the stem; (s, d) for stage s, where d = 1..num_blocks counts blocks through the whole trunk and
            a downsampling layer has the depth of the block behind it; (num_stages, num_blocks + 1) for output norms
            and what else is learned with the heads.
        """
        if name.startswith(self.head_lr_prefixes):
            return self.num_stages, self.num_blocks + 1
        stage, block = self.block_of(name)
        return stage, sum(self.depths[:stage]) + block + 1 if stage >= 0 else 0

    @staticmethod
    def parse_arch(arch: str | dict[str, Any], archs: dict[str, dict[str, Any]]) -> tuple[Any, ...]:
        """Values of `arch`, a name in the family's table or a dict with the same keys, in the table's order.

        Raises:
            ValueError: A name or keys that the table does not have.
        """
        if isinstance(arch, str) and arch not in archs:
            raise ValueError(f'unknown arch {arch!r}; choose one of {", ".join(archs)}, or give a dict')
        keys = next(iter(archs.values())).keys()
        values = archs[arch] if isinstance(arch, str) else arch
        if values.keys() != keys:
            raise ValueError(f'arch has the keys {sorted(values)}; expected {sorted(keys)}')
        return tuple(values[key] for key in keys)

    @classmethod
    def check_ascending(cls, option: str, indices: Sequence[int], total: int) -> tuple[int, ...]:
        """`indices`, the value of an option that chooses out of `total` stages.

        Raises:
            ValueError: None, out of range, or not ascending.
        """
        indices = tuple(indices)
        if not indices or sorted(set(indices)) != list(indices) or not set(indices) <= {*range(total)}:
            raise ValueError(
                f'{option}={indices} of {cls.__name__}: expected ascending stages out of {tuple(range(total))}'
            )
        return indices

    def finish(self, out_norm: bool, norm: Callable[[int], nn.Module]) -> None:
        """Add output norms, named apart from the trunk so that published files load fully, and freeze."""
        norms = {str(i): norm(c) for i, c in zip(self.out_indices, self.out_channels, strict=True)}
        self.out_norms = nn.ModuleDict(norms if out_norm else {})
        for index in range(-1, self.frozen_stages):
            for module in self.stage_modules(index):
                module.requires_grad_(False)
        keep_gradient_layout(self)
        self.train(self.training)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of an image batch.

        Args:
            x: (N, 3, H, W), any height and width of at least :attr:`min_size` pixels.

        Returns:
            One (N, C_i, H_i, W_i) per out_index, channels_last in memory.

        Raises:
            ValueError: Not three channels, or an image below :attr:`min_size`.
        """
        maps = zip(self.out_indices, self.maps(x), strict=True)
        return tuple(self.out_norms[str(i)](m) if self.out_norms else m for i, m in maps)

    def maps(self, x: Tensor) -> Iterable[Tensor]:
        """Maps of `out_indices` before their output norms."""
        return (m for i, m in enumerate(self._stages(x)) if i in self.out_indices)

    def head_features(self, x: Tensor) -> Tensor:
        """What the authors' classification head reads of an image batch: here the last map, without output norm."""
        *_, last = self._stages(x)
        return last

    def _stages(self, x: Tensor) -> Iterator[Tensor]:
        self._check_input(x)
        x = x.contiguous(memory_format=torch.channels_last)
        for index in range(self.num_stages):
            x = self.forward_stage(x, index)
            yield x

    def run_block(self, block: nn.Module, x: Tensor, **options: Any) -> Tensor:
        """`block(x, **options)`; with `with_cp`, its activations are computed again in the backward pass, not kept."""
        if self.with_cp and self.training and torch.is_grad_enabled():
            run = partial(_run_plainly, block, **options)
            if torch.compiler.is_compiling():  # a compiler recomputes no updates of statistics
                return checkpoint(run, x, use_reentrant=False)
            contexts = partial(forward_and_recomputation, block)
            return checkpoint(run, x, use_reentrant=False, context_fn=contexts)
        out = block(x, **options)
        # In inference the next block overwrites its input, which a hook may have kept.
        return out.clone() if has_hooks(block) and not torch.is_grad_enabled() else out

    def blocks_of_trunk(self) -> list[nn.Module]:
        """Blocks, and what else has parameters of one :meth:`layer_position`: stem, downsampling layers, output norms.

        Each is called as a whole, so that it can be a unit of sharding or compilation.
        """
        positions = {name: self.layer_position(name) for name, _ in self.named_parameters()}

        def within(module: nn.Module, prefix: str) -> Iterator[nn.Module]:
            own = {positions[prefix + name] for name, _ in module.named_parameters()}
            # A list of blocks, also of a single one, is not called itself, nor is what has a method in its stead.
            is_list = isinstance(module, nn.Sequential) and len(module) == 1
            is_called = type(module).forward is not nn.Module.forward and not hasattr(module, 'forward_intermediates')
            if len(own) == 1 and not is_list and is_called:
                yield module
            elif own:
                for name, child in module.named_children():
                    yield from within(child, f'{prefix}{name}.')

        return [unit for name, child in self.named_children() for unit in within(child, f'{name}.')]

    def fsdp_wrap_policy(self) -> Callable[..., bool]:
        """For `auto_wrap_policy` of FullyShardedDataParallel: each of :meth:`blocks_of_trunk` is a unit."""
        units = set(self.blocks_of_trunk())
        return lambda module, recurse, **_: recurse or module in units

    def fuse(self) -> 'PyramidBackbone':
        """Fold for inference, in place, what folds into its neighbours with equal outputs; load weights before.

        Returns:
            Itself. Its state_dict is no longer that of the published files.
        """
        return self

    def _check_input(self, x: Tensor) -> None:
        name = type(self).__name__
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(
                f'{name} got an input of shape {tuple(x.shape)}; expected (N, 3, H, W). '
                'Repeat a grey image over three channels first.'
            )
        if x.shape[2] < self.min_size or x.shape[3] < self.min_size:  # one by one, which exporters take for limits
            raise ValueError(
                f'{name} got an image of {x.shape[2]}x{x.shape[3]} pixels; its map at stride {self.out_strides[-1]} '
                f'needs at least {self.min_size}x{self.min_size}. Pad or resize it, or drop the last of out_indices.'
            )

    def train(self, mode: bool = True) -> 'PyramidBackbone':
        """Frozen stages stay in eval mode; so does every BatchNorm with `norm_eval`.

        Packed weights are dropped: averaged ones are swapped in through `.data`, which no version counter sees, but not
        without a call of `eval()`.
        """
        forget(self)
        super().train(mode)
        forget_kept(self)
        if mode:
            for index in range(-1, self.frozen_stages):
                for module in self.stage_modules(index):
                    module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> 'PyramidBackbone':
        """Packed weights do not follow parameters to another device or dtype."""
        forget(self)
        return super()._apply(*args, **kwargs)

    def init_weights(self) -> None:
        """Load the checkpoint of `init_cfg`; without one the constructor's initialisation stands, whatever ran since.

        Raises:
            CheckpointError: The file is damaged, or of another architecture.
        """
        if self.init_cfg and self.init_cfg['type'] == 'Pretrained':
            self.load_report = load_pretrained(self, self.init_cfg['checkpoint'])
        elif self.init_cfg:
            super().init_weights()
        self._is_init = True


def _run_plainly(block: nn.Module, x: Tensor, **options: Any) -> Tensor:
    with without_recomputation():
        return block(x, **options)
