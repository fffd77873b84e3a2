"""Our backbones inside models of transformers: DETR and Mask2Former train a step, and what they save is read again."""

import json

import pytest
import torch
from families import ONE_OF_EACH, tiny_arch
from torch import nn

pytest.importorskip('transformers.backbone_utils', reason='transformers 5 is not installed')
pytestmark = pytest.mark.slow  # importing transformers takes seconds


def config_of(name: str, **levels):
    from hybrid_backbones.transformers_models import HybridBackboneConfig

    return HybridBackboneConfig(name=name, options=dict(arch=tiny_arch(name)), **levels)


def train(model: nn.Module, **labels) -> None:
    model(torch.randn(2, 3, 64, 96), **labels).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_detr_trains_on_the_last_map():
    from transformers import DetrConfig, DetrForObjectDetection

    config = DetrConfig(
        backbone_config=config_of('conv2former_t', out_indices=[3]),
        d_model=32,
        num_queries=5,
        **dict.fromkeys(['encoder_layers', 'decoder_layers'], 1),
        **dict.fromkeys(['encoder_ffn_dim', 'decoder_ffn_dim'], 32),
        **dict.fromkeys(['encoder_attention_heads', 'decoder_attention_heads'], 2),
    )
    label = dict(class_labels=torch.tensor([1]), boxes=torch.tensor([[0.5, 0.5, 0.2, 0.3]]))
    train(DetrForObjectDetection(config), labels=[label, label])


def test_mask2former_trains_on_four_maps():
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig(
        backbone_config=config_of('cvt_13', out_features=['stage1', 'stage2', 'stage3', 'stage4']),
        num_queries=5,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        **dict.fromkeys(['hidden_dim', 'feature_size', 'mask_feature_size'], 32),
        **dict.fromkeys(['dim_feedforward', 'encoder_feedforward_dim'], 32),
    )
    masks = (torch.rand(1, 64, 96) > 0.5).float()
    train(
        Mask2FormerForUniversalSegmentation(config),
        mask_labels=[masks, masks],
        class_labels=[torch.tensor([1]), torch.tensor([1])],
    )


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_a_saved_backbone_of_any_family_is_read_again(name, tmp_path):
    from transformers import AutoBackbone

    from hybrid_backbones.transformers_models import HybridBackbone

    saved = AutoBackbone.from_config(config_of(name, out_indices=[1, -1])).eval()
    saved.save_pretrained(tmp_path)
    assert json.loads((tmp_path / 'config.json').read_text())['name'] == name
    read = HybridBackbone.from_pretrained(tmp_path).eval()
    assert len(read.num_features) == 4
    image = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        maps, again = saved(image).feature_maps, read(image).feature_maps
    assert [m.shape[1] for m in maps] == read.channels
    for m, other in zip(maps, again, strict=True):
        torch.testing.assert_close(m, other)
