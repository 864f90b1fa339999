"""Class activation maps: at which layer, and against the formula for a model whose head sees the mean of its tokens."""

import sys

import pytest
import torch
import torch.nn.functional as F

from smmix_mm.adapters import build_adapter
from smmix_mm.registry import MODELS
from smmix_mm.visualization.class_activation import find_last_layer, map_class_activation, to_map

LAYERS = {
    # The last norm before a class token reads the image tokens for the last time.
    'vit': lambda backbone: backbone.layers[-1].ln1,
    'pvt': lambda backbone: backbone.block4[-1].norm1,
    'cait': lambda backbone: backbone.blocks_token_only[-1].norm1,
    # The final one, whose mean is classified.
    'swin': lambda backbone: backbone.norm1,
}


@pytest.mark.parametrize('family', LAYERS)
def test_the_last_layer_that_the_logits_depend_on(make_classifier, family):
    model = make_classifier(family).eval()
    assert find_last_layer(model, torch.randn(2, 3, 32, 32), (4, 4)) is LAYERS[family](model.backbone)


def test_the_last_layer_of_a_convolutional_network_is_its_last_stage():
    model = MODELS.build(
        dict(
            type='smmix_mm.MixingClassifier',
            backbone=dict(type='mmpretrain.ResNet_CIFAR', depth=18),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(type='mmpretrain.LinearClsHead', num_classes=3, in_channels=512),
        )
    )
    assert find_last_layer(model.eval(), torch.randn(1, 3, 32, 32), (4, 4)) is model.backbone.layer4


def test_equals_the_formula_where_the_mean_of_the_tokens_is_classified(make_classifier):
    pytest.importorskip('pytorch_grad_cam')
    model = make_classifier('swin').eval()
    images, labels = torch.randn(3, 3, 32, 32), [4, 0, 2]
    found = map_class_activation(model, images, labels)
    # Grad-CAM's weights are then those of the linear layer, up to a factor.
    tokens = build_adapter(model.backbone).read(images).tokens
    expected = torch.einsum('bnc,bc->bn', tokens, model.head.fc.weight[labels]).clamp(min=0).unflatten(1, (4, 4))
    resized = F.interpolate(expected[:, None], size=(32, 32), mode='bilinear')[:, 0].detach()
    low, high = resized.flatten(1).aminmax(dim=1)
    torch.testing.assert_close(found, (resized - low[:, None, None]) / (high - low)[:, None, None], atol=1e-4, rtol=0)
    # Other classes are found elsewhere.
    assert not torch.allclose(found, map_class_activation(model, images, [0, 1, 3]), atol=0.1)
    assert not model.training


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait'])
def test_every_family_gives_maps(make_classifier, family):
    pytest.importorskip('pytorch_grad_cam')
    model = make_classifier(family).eval()
    # Nothing may speak for some of the classes.
    found = map_class_activation(model, torch.randn(1, 3, 32, 32).expand(5, 3, 32, 32), range(5))
    assert found.shape == (5, 32, 32)
    assert found.min() == 0
    assert found.max() == pytest.approx(1, abs=1e-4)
    assert found.std(dim=(1, 2)).max() > 0.1


def test_outputs_are_read_in_every_layout():
    places = torch.arange(2 * 5 * 6.0).view(2, 5, 2, 3)
    tokens = places.flatten(2).mT
    for output in (
        places,
        places.permute(0, 2, 3, 1),
        tokens,
        torch.cat([torch.zeros(2, 1, 5), tokens], dim=1),
        torch.cat([torch.zeros(2, 2, 5), tokens], dim=1),
    ):
        assert to_map(output, (2, 3)).equal(places)
    for output in (tokens[:, 1:], torch.zeros(2, 30, 5), places[..., :2], torch.zeros(2, 5)):
        assert to_map(output, (2, 3)) is None


def test_a_missing_library_is_named(make_classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pytorch_grad_cam', None)
    with pytest.raises(ImportError, match='pip install grad-cam'):
        map_class_activation(make_classifier().eval(), torch.randn(1, 3, 32, 32), [0])


def test_a_model_without_such_a_layer_is_refused(make_classifier):
    model = make_classifier().eval()
    with pytest.raises(ValueError, match=r'VisionTransformer has no layer with the 5 x 5 tokens'):
        find_last_layer(model, torch.randn(1, 3, 32, 32), (5, 5))
