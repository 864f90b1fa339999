"""The rivals against values from their released codes; see ``data/README.md``.

Each method runs as in training; only what it draws, and what a model would tell it, are those of the reference.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS
from mmpretrain.structures import DataSample

from smmix_mm import functional
from smmix_mm.mixing import AttentiveMix, FMix, MixBlock, PuzzleMix, ResizeMix, SaliencyMix, Streams, TokenMix, TransMix
from smmix_mm.registry import MODELS
from smmix_mm.structures import Features, Motivation

ROOT = Path(__file__).resolve().parents[1]
RIVALS = ROOT / 'tests/data/rivals'


def cases(name, kind='n'):
    """Of each case its values by their names, without the number of the case."""
    with np.load(RIVALS / f'{name}.npz') as arrays:
        values = dict(arrays)
    count = int(values[kind])
    return values, [
        SimpleNamespace(
            **{
                key.removesuffix(str(case)): value.item() if value.ndim == 0 else value
                for key, value in values.items()
                if key.endswith(str(case)) and not key.removesuffix(str(case))[-1:].isdigit()
            }
        )
        for case in range(count)
    ]


class Draws:
    """A stream that gives the numbers of a reference, in their order, whichever distribution is asked."""

    def __init__(self, *numbers):
        self.numbers = iter(numbers)

    def __getattr__(self, name):
        return lambda *args, **kwargs: next(self.numbers)

    @property
    def streams(self):
        return Streams(shared=self, local=self)


def smoothed(labels, classes, smoothing):
    return (1 - smoothing) * labels + smoothing / classes


def tensor(values):
    return torch.as_tensor(values).float() if values.dtype != bool else torch.as_tensor(values)


def test_transmix():
    """Boxes equal, labels to single precision."""
    common, found = cases('transmix')
    classes, smoothing = int(common['classes']), float(common['label_smooth'])
    for case in found:
        images, targets = torch.rand(len(case.labels), 3, case.size, case.size), torch.eye(classes)[case.labels]
        before = images.clone()
        method = TransMix()
        mixed = method(images, targets, None, Draws(case.wanted, *case.centre).streams)
        assert mixed.source_box == tuple(case.box)
        assert torch.equal(mixed.images, paste(before, case.box, before.flip(0)))
        assert functional.box_share(mixed.source_box, (case.size, case.size)) == pytest.approx(case.area_share)
        attention = tensor(case.attention).view(-1, case.grid, case.grid)
        labels = method.relabel(Features((), None, None, class_attention=attention), mixed)
        torch.testing.assert_close(smoothed(labels, classes, smoothing), tensor(case.soft), rtol=0, atol=1e-6)


def paste(images, box, sources):
    top, left, bottom, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = sources[:, :, top:bottom, left:right]
    return mixed


def test_tokenmix():
    """Masks equal; labels and loss to single precision, with the criterion that its configs have."""
    common, found = cases('tokenmix')
    classes, smoothing = int(common['classes']), float(common['label_smooth'])
    criterion = MODELS.build(
        dict(
            type='mmpretrain.LabelSmoothLoss',
            label_smooth_val=smoothing,
            mode='original',
            use_sigmoid=True,
            num_classes=classes,
            loss_weight=1 / classes,
        )
    )
    for case in found:
        method = TokenMix(mask=case.kind)
        method.prepare(SimpleNamespace(head=SimpleNamespace(loss_module=criterion)))
        targets = torch.eye(classes)[case.labels]
        draws = case.draws if case.kind == 'block' else [case.draws.astype(int)]
        told = Motivation(grid=(14, 14), class_map=tensor(case.maps))
        images = torch.rand(len(targets), 3, 224, 224)
        mixed = method(images, targets, (told,), Draws(*whole_places(draws)).streams)
        mask = functional.pixel_mask(tensor(case.mask), (224, 224))
        assert torch.equal(mixed.images, torch.where(mask, images.flip(0), images))
        torch.testing.assert_close(smoothed(mixed.targets, classes, smoothing), tensor(case.soft), rtol=0, atol=1e-6)
        loss = criterion(tensor(case.logits), mixed.targets, avg_factor=len(targets))
        assert loss.item() == pytest.approx(case.bce, abs=1e-6)


def whole_places(draws):
    """Tops and lefts of blocks are whole numbers; areas and logarithms are not, or are not used as places."""
    return [int(number) if isinstance(number, float) and number.is_integer() else number for number in draws]


def test_fmix():
    """No pixel differs from the rounding down; the one more of the rounding up is the next in order."""
    for case in cases('fmix')[1]:
        size = case.rank.shape
        field = tensor(case.rank.astype(np.float32)) / case.rank.size
        expected = np.unpackbits(case.mask, count=case.rank.size).reshape(size).astype(bool)
        count = int(case.share * case.rank.size)
        mask = functional.strongest_cells(field.unsqueeze(0), count)[0]
        assert np.array_equal(mask.numpy(), expected)
        if case.round_up_pixel >= 0:
            more = functional.strongest_cells(field.unsqueeze(0), count + 1)[0]
            assert (more & ~mask).flatten().nonzero().tolist() == [[case.round_up_pixel]]


def test_fmix_mixes_by_that_mask(monkeypatch):
    case = cases('fmix')[1][0]
    size = case.rank.shape
    field = tensor(case.rank.astype(np.float32)) / case.rank.size
    monkeypatch.setattr(functional, 'low_frequency_field', lambda noise, decay: field)
    images = torch.rand(2, 3, *size)
    draws = Draws(np.array([1, 0]), case.share, np.zeros((*size, 2), dtype=np.float32))
    mixed = FMix()(images, torch.eye(2), None, draws.streams)
    mask = torch.as_tensor(np.unpackbits(case.mask, count=case.rank.size).reshape(size).astype(bool))
    assert torch.equal(mixed.images, torch.where(mask, images.flip(0), images))
    assert mixed.targets[0, 1].item() == pytest.approx(mask.float().mean().item())


def test_attentivemix():
    """No cell differs, with k given and with k from the drawn share."""
    found = cases('attentivemix')[1]
    for case in found:
        drawn = not np.isnan(case.share_drawn)
        method = AttentiveMix(cells=None if drawn else case.k, by='activation')
        scores = tensor(case.features).mean(dim=1)
        told = Motivation(grid=(7, 7), activation=scores)
        order = np.array([3, 0, 1, 2])
        draws = Draws(*([case.share_drawn] if drawn else []), order)
        images = torch.rand(4, 3, 224, 224)
        mixed = method(images, torch.eye(4), (told,), draws.streams)
        mask = functional.pixel_mask(tensor(case.mask[order]), (224, 224)).unsqueeze(1)
        assert torch.equal(mixed.images, torch.where(mask, images[order], images))
        assert mixed.targets[0, 3].item() == pytest.approx(case.share)
    assert sum(not np.isnan(case.share_drawn) for case in found) == 4


def test_saliencymix(monkeypatch):
    """No pixel of the box differs, the share to single precision."""
    for case in cases('saliencymix')[1]:
        size = tuple(case.size)
        monkeypatch.setattr(SaliencyMix, 'find_peaks', lambda self, images, peak=case.peak: torch.tensor(peak)[None])
        images = torch.rand(2, 3, *size)
        mixed = SaliencyMix()(images, torch.eye(2), None, Draws(np.array([1, 0]), case.wanted).streams)
        assert torch.equal(mixed.images, paste(images, case.box, images.flip(0)))
        assert mixed.targets[0, 1].item() == pytest.approx(case.label_share, abs=1e-7)


def test_resizemix():
    for case in cases('resizemix')[1]:
        images, targets = tensor(case.images), torch.eye(len(case.pairs))
        method = ResizeMix()
        draws = Draws(case.pairs, case.side_ratio, *case.centre)
        mixed = method(images, targets, None, draws.streams)
        assert torch.equal(mixed.images, tensor(case.mixed))
        source = np.arange(len(case.pairs)), case.pairs
        expected = torch.full((len(case.pairs),), case.label_share)
        torch.testing.assert_close(mixed.targets[source], expected, rtol=0, atol=1e-7)


def test_the_area_that_resizemix_pastes():
    """Over as many draws as the reference: within four standard errors of each."""
    common, _ = cases('resizemix')
    draws, stream, method = int(common['area_draws']), np.random.default_rng(0), ResizeMix()
    areas = np.array([functional.box_share(method.draw_box((224, 224), stream), (224, 224)) for _ in range(draws)])
    deviation = float(common['area_std'])
    assert areas.mean() == pytest.approx(float(common['area_mean']), abs=4 * deviation * np.sqrt(2 / draws))
    assert areas.std() == pytest.approx(deviation, rel=0.05)
    np.testing.assert_allclose(np.quantile(areas, [0.25, 0.5, 0.75]), common['area_quartiles'], atol=0.012)


def test_puzzlemix():
    """Masks, labels and, moved blocks included, mixed images: no difference in any of 40 images."""
    common, found = cases('puzzlemix')
    up, mean, std = int(common['up']), common['mean'], common['std']
    for case in found:
        images = tensor(case.images).repeat_interleave(up, 2).repeat_interleave(up, 3)
        images = (images - tensor(mean).view(3, 1, 1)) / tensor(std).view(3, 1, 1)
        gradient = tensor(case.gradient).repeat_interleave(up, 2).repeat_interleave(up, 3)
        method = PuzzleMix(block_powers=case.power)
        method.prepare(
            SimpleNamespace(data_preprocessor=SimpleNamespace(std=torch.as_tensor(std), _enable_normalize=True))
        )
        told, targets = Motivation(grid=(1, 1), input_gradient=gradient), torch.eye(len(images))
        draws = Draws(case.pairs, case.share, case.power)
        mixed = method(images, targets, (told,), draws.streams)
        expected = tensor(case.mixed).repeat_interleave(up, 2).repeat_interleave(up, 3)
        assert torch.equal(mixed.images, expected)
        source = np.arange(len(images)), case.pairs
        assert np.array_equal(mixed.targets[source].numpy(), case.label_share)
        assert np.array_equal(case.mask.mean(axis=(1, 2)) / 2, case.label_share)


def fill(block, values, prefix='', number=''):
    """Weights of the released mix block, whose 1 x 1 convolutions are linear layers here."""
    with torch.no_grad():
        for ours, theirs in ((block.query_key, 'query'), (block.value, 'value')):
            ours.weight.copy_(tensor(values[f'{prefix}{theirs}_weight{number}']))
            ours.bias.copy_(tensor(values[f'{prefix}{theirs}_bias{number}']))


def test_masks_of_automix():
    common, found = cases('automix')
    for number, case in enumerate(found):
        features, pairs = tensor(case.features), torch.as_tensor(case.pairs)
        block = MixBlock(features.shape[1])
        fill(block, common, number=number)
        mask = block(features[pairs], features, case.share)
        torch.testing.assert_close(mask, torch.as_tensor(case.mask), rtol=0, atol=4e-6)
        excess = ((mask.mean() - case.share).abs() - 0.1).clamp(min=0)
        assert excess.item() == pytest.approx(case.mask_loss, abs=4e-6)


@pytest.fixture
def automix_model():
    """The classifier of the reference: same backbone, mix block and two heads."""
    values, _ = cases('automix')

    def build(two_heads):
        model = MODELS.build(
            dict(
                type='smmix_mm.MixingClassifier',
                backbone=dict(
                    type='mmpretrain.VisionTransformer',
                    arch=dict(
                        embed_dims=int(values['embed_dims']),
                        num_layers=int(values['num_layers']),
                        num_heads=int(values['num_heads']),
                        feedforward_channels=int(values['feedforward']),
                    ),
                    img_size=int(values['img_size']),
                    patch_size=int(values['patch_size']),
                ),
                head=dict(
                    type='mmpretrain.VisionTransformerClsHead',
                    num_classes=int(values['classes']),
                    in_channels=int(values['embed_dims']),
                    loss=dict(
                        type='mmpretrain.LabelSmoothLoss',
                        label_smooth_val=0.1,
                        mode='original',
                        num_classes=int(values['classes']),
                    ),
                ),
                train_cfg=dict(augments=[dict(type='smmix_mm.AutoMix', layer=int(values['layer']))]),
            )
        )
        method = model.mixing.methods[0]
        model.backbone.load_state_dict(
            {
                key.removeprefix('w.backbone.'): tensor(value)
                for key, value in values.items()
                if key.startswith('w.backbone.')
            }
        )
        fill(method.mix_block, values, 'w.mix_block.')
        for head, name in ((model.head, 'head_mix'), (method.one_hot_head, 'head_one' if two_heads else 'head_mix')):
            head.layers.head.load_state_dict({part: tensor(values[f'w.{name}.{part}']) for part in ('weight', 'bias')})
        return model.train()

    return build


def test_steps_of_automix(automix_model):
    """Each loss, their sum, and the norms of what reaches the mix block and the backbone."""
    values, steps = cases('automix', 'steps')
    up, classes = int(values['up']), int(values['classes'])
    images = tensor(values['images']).repeat_interleave(up, 2).repeat_interleave(up, 3)
    images = (images - float(values['image_mean'])) / float(values['image_std'])
    samples = [DataSample().set_gt_score(score) for score in torch.eye(classes)[values['labels']]]
    seen = set()
    for step in steps:
        model = automix_model(step.two_heads)
        first, second = zip(step.step_shares, step.step_pairs, strict=True)
        local, shared = Draws(*first, *second), Draws(0.0 if step.learns else 1.0)
        model.mixing.draw = lambda model=model, local=local, shared=shared: (
            model.mixing.methods[0],
            Streams(shared=shared, local=local),
        )
        losses = model.loss(images.clone(), samples)
        total = sum(losses.values())
        total.backward()
        for name in ('loss_cls', 'loss_one_hot', 'loss_mix_block', 'loss_mask'):
            assert losses[name].item() == pytest.approx(getattr(step, name, 0.0) or 0.0, abs=2e-5), name
        assert total.item() == pytest.approx(step.total, rel=2e-6)
        for part, expected in (
            (model.mixing.methods[0].mix_block, step.grad_mix_block),
            (model.backbone, step.grad_backbone),
        ):
            norm = torch.cat([parameter.grad.flatten() for parameter in part.parameters()]).norm().item()
            assert norm == pytest.approx(expected, rel=1e-5)
        seen.add((step.two_heads, step.learns))
    assert len(steps) == 5
    assert {two_heads for two_heads, _ in seen} == {learns for _, learns in seen} == {0, 1}


def erase_many(draws, filled, side=224):
    """Areas and aspects of erased regions, and the noise of the first of them as the network gets it, normalised."""
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/imagenet_bs128_224_erasing.py')
    (settings,) = [step for step in cfg.train_pipeline if step.type.endswith('RandomErasing')]
    erase = TRANSFORMS.build(dict(settings, erase_prob=1.0))
    preprocess = MODELS.build(dict(cfg.data_preprocessor, type='mmpretrain.ClsDataPreprocessor'))
    image = np.zeros((side, side, 3), dtype=np.uint8)
    areas, aspects, noise = [], [], []
    fill = erase._fill_pixels

    def record(image, top, left, height, width):
        assert 0 <= top <= side - height
        assert 0 <= left <= side - width
        areas.append(height * width / side**2)
        aspects.append(np.log(height / width))
        if len(areas) > filled:
            # Drawing the noise takes most of the time.
            return image
        box = fill(image, top, left, height, width)[top : top + height, left : left + width]
        packed = dict(inputs=torch.as_tensor(box.transpose(2, 0, 1).copy())[None])
        values = preprocess(packed)['inputs'].double()
        noise.append((values.numel(), values.sum().item(), values.square().sum().item()))
        return image

    erase._fill_pixels = record
    np.random.seed(0)
    for _ in range(draws):
        erase(dict(img=image))
    return np.array(areas), np.array(aspects), np.array(noise)


def test_random_erasing_is_timms():
    """Area, shape and noise over thousands of draws, at the place where the configs of the comparison erase."""
    with np.load(RIVALS / 'erasing.npz') as expected:
        draws = 5000
        areas, aspects, noise = erase_many(draws, filled=300)
        error = float(expected['area_std']) * np.sqrt(1 / draws + 1 / int(expected['draws']))
        assert areas.mean() == pytest.approx(float(expected['area_mean']), abs=4 * error)
        assert areas.std() == pytest.approx(float(expected['area_std']), rel=0.05)
        assert areas.min() == pytest.approx(float(expected['area_min']), abs=0.001)
        assert areas.max() == pytest.approx(float(expected['area_max']), abs=0.003)
        error = float(expected['log_aspect_std']) * np.sqrt(1 / draws + 1 / int(expected['draws']))
        assert aspects.mean() == pytest.approx(float(expected['log_aspect_mean']), abs=4 * error)
        assert aspects.std() == pytest.approx(float(expected['log_aspect_std']), rel=0.05)
        count, total, squares = noise.sum(axis=0)
        mean = total / count
        # Eight bits cut off the tails of the noise.
        assert mean == pytest.approx(float(expected['noise_mean']), abs=0.01)
        assert np.sqrt(squares / count - mean**2) == pytest.approx(float(expected['noise_std']), abs=0.04)
