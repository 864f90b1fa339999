"""What the package needs of every torch and OpenMMLab that it runs on."""

import copy

import pytest
import torch
from mmcv.cnn.bricks.transformer import FFN

from smmix_mm.compat import is_compiling, make_traceable


def test_compilation_is_noticed():
    def seen(value):
        return value + 1 if is_compiling() else value

    assert seen(torch.zeros(1)) == 0
    assert torch.compile(seen, backend='eager', fullgraph=True)(torch.zeros(1)) == 1


@pytest.mark.parametrize('family', ['vit', 'swin', 'pvt', 'cait'])
@torch.no_grad()
def test_traceable_models_are_what_they_were(make_backbone, family):
    backbone, images = make_backbone(family), torch.randn(2, 3, 32, 32)
    backbone.eval()
    expected, names = backbone(images)[0], list(backbone.state_dict())
    make_traceable(backbone)
    assert backbone(images)[0].equal(expected)
    assert list(backbone.state_dict()) == names
    # A copy must not go on with the parts of its original.
    twin = copy.deepcopy(backbone)
    for parameter in twin.parameters():
        parameter.zero_()
    assert not twin(images)[0].any()
    assert backbone(images)[0].equal(expected)


@torch.no_grad()
def test_deprecated_arguments_end_where_graphs_begin():
    """Before, mmengine's decorator stands around the method; after, nothing that dynamo has to look through."""
    ffn = FFN(embed_dims=4, feedforward_channels=8)
    values = torch.randn(2, 4)
    with pytest.warns(DeprecationWarning):
        expected = ffn(values, residual=values)
    make_traceable(ffn)
    assert torch.compile(ffn, backend='eager', fullgraph=True)(values, identity=values).equal(expected)
    with pytest.raises(TypeError, match='residual'):
        ffn(values, residual=values)
