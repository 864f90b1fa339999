"""Channels-last: where it reaches, and that it changes no figure."""

import pytest
import torch
from mmpretrain.structures import DataSample

# Settings for pictures of 32 x 32.
METHODS = [
    'mmpretrain.Mixup',
    'mmpretrain.CutMix',
    'mmpretrain.ResizeMix',
    'smmix_mm.TransMix',
    'smmix_mm.SaliencyMix',
    'smmix_mm.FMix',
    'smmix_mm.ResizeMix',
    'smmix_mm.PuzzleMix',
    'smmix_mm.AutoMix',
    'smmix_mm.SMMix',
    'smmix_mm.TokenMix',
    'smmix_mm.AttentiveMix',
]
OWN = {
    'mmpretrain.Mixup': dict(alpha=0.8),
    'mmpretrain.CutMix': dict(alpha=1.0),
    'mmpretrain.ResizeMix': dict(alpha=1.0),
    'smmix_mm.TokenMix': dict(patch_size=8, extra_tokens=2),
    'smmix_mm.AttentiveMix': dict(cell_size=8),
}


def is_last(images):
    return images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('family', ['vit', 'pvt', 'cait', 'swin'])
@pytest.mark.parametrize('method', METHODS)
def test_the_layout_reaches_the_backbone_and_no_figure_changes(make_classifier, enter_run, method, family):
    """Through every method; losses and gradients are those of the usual layout."""
    enter_run(0, 0)
    augments = [dict(type=method, **OWN.get(method, {}))]
    teacher = make_classifier('vit', type='mmpretrain.ImageClassifier') if method in METHODS[-2:] else None
    plain = make_classifier(family, augments=augments, teacher=teacher).train()
    model = make_classifier(family, augments=augments, teacher=teacher, channels_last=True).train()
    model.load_state_dict(plain.state_dict())
    images, seen, found = list(torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)), [], []
    model.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for part in (plain, model):
        samples = [DataSample().set_gt_label(index) for index in range(3)]
        data = part.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
        assert is_last(data['inputs']) == (part is model)
        losses = part.loss(**data)
        sum(losses.values()).backward()
        gradients = {name: weight.grad for name, weight in part.named_parameters() if weight.grad is not None}
        found.append(losses | gradients)
    assert seen and all(is_last(batch) for batch in seen)
    convolutions = [weight for weight in model.state_dict().values() if weight.ndim == 4 and weight.shape[1] > 1]
    assert convolutions and all(is_last(weight) for weight in convolutions)
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-4, msg=name)


def test_weights_that_are_loaded_take_the_layout(make_classifier, tmp_path):
    plain, model = make_classifier('pvt'), make_classifier('pvt', channels_last=True)
    torch.save(plain.state_dict(), tmp_path / 'weights.pth')
    model.load_state_dict(torch.load(tmp_path / 'weights.pth', weights_only=True))
    weight = model.backbone.patch_embed2.proj.weight
    assert is_last(weight) and weight.equal(plain.backbone.patch_embed2.proj.weight)
