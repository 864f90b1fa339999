"""The ImageNet recipe's augmentation, on photographs: pixels of Pillow, and operations and distribution of timm."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmpretrain.datasets.transforms import RandAugment as StockRandAugment
from mmpretrain.datasets.transforms import RandomResizedCrop as StockRandomResizedCrop
from PIL import Image, ImageEnhance
from scipy.stats import chi2_contingency, ks_2samp
from sklearn.datasets import load_sample_images
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation

from smmix_mm.datasets import LoadImage, RandAugment, RandomResizedCrop
from smmix_mm.datasets.memory_layout import store_densely
from smmix_mm.datasets.rand_augment import FASTER
from smmix_mm.datasets.resized_crop import resize
from smmix_mm.registry import TRANSFORMS

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = [np.asarray(Image.fromarray(image).resize((500, 333))) for image in load_sample_images().images]
FILTERS = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)
RECIPE = Config.fromfile(ROOT / 'configs/_base_/datasets/imagenet_bs128_224.py').train_pipeline
# As the recipe's timm string.
TIMM = rand_augment_transform(
    'rand-m9-mstd0.5-inc1', dict(translate_const=100, img_mean=(124, 116, 104), interpolation=Image.Resampling.BICUBIC)
)


def settings_of(name: str) -> dict:
    (settings,) = [dict(step) for step in RECIPE if step['type'] == f'smmix_mm.{name}']
    return settings


def encode(image: np.ndarray, mode: str = 'RGB', **settings: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, 'JPEG', **settings)
    return file.getvalue()


# JPEG files


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize(
    'settings',
    [
        dict(quality=95),
        dict(quality=30, subsampling=2),
        dict(subsampling=0),
        dict(progressive=True),
        dict(optimize=True, restart_marker_rows=2),
    ],
    ids=lambda settings: '-'.join(settings),
)
def test_jpeg_has_the_pixels_of_pillow(tmp_path, mode, settings):
    for number, photograph in enumerate((*PHOTOGRAPHS, PHOTOGRAPHS[0][:17, :23], PHOTOGRAPHS[0][:1, :1])):
        path = tmp_path / f'{number}.jpg'
        path.write_bytes(encode(photograph, mode, **settings))
        found = LoadImage()(dict(img_path=str(path)))['img']
        np.testing.assert_array_equal(found[..., ::-1], np.asarray(Image.open(path).convert('RGB')))
        stock = LoadImage(imdecode_backend='pillow')(dict(img_path=str(path)))['img']
        np.testing.assert_array_equal(found, stock)


def test_what_pillow_refuses_of_a_damaged_jpeg_is_refused(tmp_path):
    """Cut off at any place, or with other bytes; what Pillow accepts has its pixels."""
    rng, content, path = random.Random(0), encode(PHOTOGRAPHS[0][:120, :160], quality=90), tmp_path / 'damaged.jpg'
    outcomes = set()
    for case in range(-1, 120):
        damaged = bytearray(content[: rng.randrange(len(content))] if case % 2 else content)
        for _ in range(0 if case % 2 else 3):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        # One without the mark of its end, which torchvision alone refuses.
        path.write_bytes(damaged if case >= 0 else content[:-2] + b'\0\0')
        try:
            expected = np.asarray(Image.open(path).convert('RGB'))
        except (OSError, SyntaxError):
            expected = None
        outcomes.add(expected is None)
        if expected is None:
            with pytest.raises(OSError, match=f'image {path} cannot be read'):
                LoadImage()(dict(img_path=str(path)))
        else:
            np.testing.assert_array_equal(LoadImage()(dict(img_path=str(path)))['img'][..., ::-1], expected)
    assert outcomes == {True, False}


# Crops


@pytest.mark.parametrize('interpolation', FILTERS)
@pytest.mark.parametrize('side', [32, 192, 224, 384])
def test_resized_as_by_pillow(interpolation, side):
    """Reduced and enlarged, of pixels in RGB and in BGR order: at most 2 of 255 apart, by 0.01 on average.

    Pillow is told to resize the width first, as it does before version 13.
    """
    for photograph in PHOTOGRAPHS:
        for crop in (
            photograph,
            photograph[40:100, 30:95],
            photograph[:300, 5:60],
            photograph[10:300, 7:227],
            photograph[3:4, 2:3],
        ):
            wide = Image.fromarray(crop).resize((side, len(crop)), FILTERS[interpolation])
            expected = np.asarray(wide.resize((side, side), FILTERS[interpolation]))
            for found in (
                resize(crop, (side, side), interpolation),
                resize(crop[..., ::-1], (side, side), interpolation)[..., ::-1],
            ):
                difference = np.abs(found.astype(int) - expected)
                assert found.shape == (side, side, 3)
                assert difference.max() <= 2
                assert difference.mean() <= 0.01


def test_size_is_height_and_width():
    assert resize(PHOTOGRAPHS[0], (20, 30)).shape == (20, 30, 3)
    crop = RandomResizedCrop(scale=(20, 30))(dict(img=PHOTOGRAPHS[0]))
    assert (crop['img'].shape, crop['img_shape']) == ((20, 30, 3), (20, 30, 3))


def test_crops_are_those_of_mmpretrain():
    ours, stock = RandomResizedCrop(scale=96), StockRandomResizedCrop(96, interpolation='bicubic', backend='pillow')
    for seed in range(30):
        found = []
        for transform in (ours, stock):
            np.random.seed(seed)
            found.append(transform(dict(img=PHOTOGRAPHS[seed % 2].copy()))['img'].astype(int))
        assert np.abs(found[0] - found[1]).max() <= 2


def test_crops_are_distributed_as_those_of_timm():
    """Area, aspect ratio and position over 5000 draws."""
    image, size = Image.fromarray(PHOTOGRAPHS[0]), np.array(PHOTOGRAPHS[0].shape[:2])
    ours, timm = RandomResizedCrop(scale=224), RandomResizedCropAndInterpolation(224, (0.08, 1.0), (3 / 4, 4 / 3))
    np.random.seed(0)
    random.seed(0)
    found = []
    for draw in (
        lambda: ours.rand_crop_params(PHOTOGRAPHS[0]),
        lambda: timm.get_params(image, timm.scale, timm.ratio),
    ):
        boxes = np.array([draw() for _ in range(5000)])
        offsets, sides = boxes[:, :2], boxes[:, 2:]
        area, aspect = sides.prod(1) / size.prod(), np.log(sides[:, 1] / sides[:, 0])
        position = (offsets + 0.5) / (size - sides + 1)
        found.append(np.column_stack([area, aspect, position]))
    assert_alike(*found)


def assert_alike(first: np.ndarray, second: np.ndarray) -> None:
    """Means within four standard errors of their difference, and spreads alike; by column."""
    error = np.sqrt(first.var(0) / len(first) + second.var(0) / len(second)) + 1e-9
    assert (np.abs(first.mean(0) - second.mean(0)) <= 4 * error).all(), (first.mean(0), second.mean(0))
    np.testing.assert_allclose(first.std(0), second.std(0), rtol=0.06, atol=1e-6)


@pytest.mark.parametrize('image', [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_other_images_are_refused(image):
    for transform in (RandomResizedCrop(scale=8), RandAugment('timm_increasing', 1, 1)):
        with pytest.raises(ValueError, match=rf'needs images of shape .* but got .*{image.dtype}'):
            transform(dict(img=image))


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match=r"one of .*'bicubic'.* but got 'lanczos'"):
        RandomResizedCrop(scale=8, interpolation='lanczos')
    with pytest.raises(ValueError, match=r"one of .*'timm_increasing'.* but got 'timm'"):
        RandAugment('timm', 2, 9)


# RandAugment


def test_rand_augment_gives_the_pixels_of_mmpretrain():
    """Whatever view of the pixels it gets, which stays as it is."""
    settings = settings_of('RandAugment')
    ours = TRANSFORMS.build(settings)
    stock = StockRandAugment(**{name: value for name, value in settings.items() if name != 'type'})
    # Their own, which may differ by 1, is compared below.
    names = [type(part).__name__ for part in stock.transforms]
    stock.transforms[names.index('Contrast')] = ours.transforms[names.index('Contrast')]
    for seed in range(60):
        image = PHOTOGRAPHS[seed % 2][: 60 + seed, : 150 - seed, :: (1, -1)[seed % 2]][:, :: (1, -1)[seed // 2 % 2]]
        before, found = image.copy(), []
        for transform in (ours, stock):
            np.random.seed(seed)
            found.append(transform(dict(img=image))['img'])
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize('name', FASTER)
def test_faster_operations_give_the_pixels_of_mmpretrain(name):
    """Also of few values, and of one."""
    rng = np.random.default_rng(0)
    for case in range(120):
        low = rng.integers(0, 255)
        noise = rng.integers(low, rng.integers(low + 1, 257), (*rng.integers(1, 50, 2), 3), dtype=np.uint8)
        image = noise if case % 3 else PHOTOGRAPHS[case % 2][case:, case:].copy()
        settings = dict(prob=1.0)
        if name == 'Contrast':
            settings |= dict(magnitude=rng.uniform(-1, 1), random_negative_prob=0.0)
        ours, stock = (TRANSFORMS.build(dict(settings, type=f'{scope}.{name}')) for scope in ('smmix_mm', 'mmpretrain'))
        found, expected = (part(dict(img=image.copy()))['img'] for part in (ours, stock))
        assert found.dtype == np.uint8
        if name == 'Contrast':
            # mmcv adds in another order, and rounds a mean grey between two values to the even one.
            assert np.abs(found.astype(int) - expected).max() <= 1
            expected = np.asarray(
                ImageEnhance.Contrast(Image.fromarray(image[..., ::-1])).enhance(1 + settings['magnitude'])
            )[..., ::-1]
        np.testing.assert_array_equal(found, expected)


def test_images_are_stored_densely_without_another_pixel():
    for rows in (1, -1):
        for cols in (1, -1):
            for channels in (1, -1):
                for part in (PHOTOGRAPHS[0], PHOTOGRAPHS[0][:1], PHOTOGRAPHS[0][:, :1]):
                    view = part[::rows, ::cols, ::channels]
                    found = store_densely(view)
                    assert found.flags.c_contiguous
                    assert min(found.strides) > 0
                    np.testing.assert_array_equal(found, view)
                    assert resize(view, (9, 7)).shape == (9, 7, 3)


# By timm's names. OpenCV's bicubic filter differs from Pillow's, and the edge of the fill by parts of a pixel.
GEOMETRIC = ('Rotate', 'ShearX', 'ShearY', 'TranslateXRel', 'TranslateYRel')
OURS = TRANSFORMS.build(settings_of('RandAugment')).transforms
PAIRS = dict(zip((op.name for op in TIMM.ops), zip(OURS, TIMM.ops, strict=True), strict=True))


@pytest.mark.parametrize('name', PAIRS)
@pytest.mark.parametrize('level', [3, 9])
def test_operations_are_timms(name, level, monkeypatch):
    """At this level, without noise on it: the same pixels, up to the rounding of blends and the filters."""
    ours, timm = PAIRS[name]
    for part in (ours, timm):
        monkeypatch.setattr(part, 'prob', 1.0)
    monkeypatch.setattr(ours, 'magnitude_std', 0.0)
    monkeypatch.setattr(ours, 'magnitude_level', level)
    monkeypatch.setattr(timm, 'magnitude_std', 0.0)
    monkeypatch.setattr(timm, 'magnitude', level)
    image = PHOTOGRAPHS[0][:224, :224]
    # Both signs, which the two draw by different generators.
    found, expected = {}, {}
    for seed in range(12):
        np.random.seed(seed)
        random.seed(seed)
        pixels = ours(dict(img=image[..., ::-1].copy()))['img'][..., ::-1]
        found[pixels.tobytes()] = pixels.astype(int)
        pixels = np.asarray(timm(Image.fromarray(image)))
        expected[pixels.tobytes()] = pixels.astype(int)
    assert len(found) == len(expected)
    for pixels in found.values():
        differences = [np.abs(pixels - other) for other in expected.values()]
        nearest = min(differences, key=np.mean)
        assert nearest.mean() < (2.5 if name in GEOMETRIC else 0.6)
        # Along edges; in the other operations, Sharpness treats the border of the image in another way.
        assert (nearest > 2).mean() < (0.3 if name in GEOMETRIC else 0.01)


# What a magnitude of ours becomes before it is used, and timm's argument as a magnitude of ours.
ROUNDED = dict(PosterizeIncreasing=np.ceil, SolarizeIncreasing=np.ceil, SolarizeAdd=np.floor)
FACTORS = ('ColorIncreasing', 'ContrastIncreasing', 'BrightnessIncreasing', 'SharpnessIncreasing')


def test_operations_and_magnitudes_are_distributed_as_those_of_timm(monkeypatch):
    """Of 5000 images: how often each operation is applied, and at which magnitude."""
    found, expected = ({name: [] for name in PAIRS} for _ in range(2))

    def record(part, method, values, first=False):
        draw = getattr(part, method)

        def drawn(*args):
            result = draw(*args)
            if not first:
                values[-1] = result
            elif not result:
                # Applied; operations without a magnitude leave the 0.
                values.append(0.0)
            return result

        monkeypatch.setattr(part, method, drawn)

    for name, (ours, timm) in PAIRS.items():
        record(ours, 'random_disable', found[name], first=True)
        record(ours, 'random_magnitude', found[name])
        record(ours, 'random_negative', found[name])

        def apply(image, *args, values=expected[name], **_):
            values.append(args[0] if args else 0.0)
            return image

        monkeypatch.setattr(timm, 'aug_fn', apply)
    augment = TRANSFORMS.build(settings_of('RandAugment'))
    augment.transforms = [ours for ours, _ in PAIRS.values()]
    np.random.seed(0)
    random.seed(0)
    image = np.zeros((2, 2, 3), np.uint8)
    for _ in range(5000):
        augment(dict(img=image.copy()))
        TIMM(image)
    counts = [[len(values) for values in draws.values()] for draws in (found, expected)]
    assert sum(counts[0]) == pytest.approx(5000, abs=4 * np.sqrt(2500))
    assert chi2_contingency(counts).pvalue > 1e-3
    for name in PAIRS:
        ours, timm = np.array(found[name]), np.array(expected[name], dtype=float)
        ours, timm = ROUNDED.get(name, np.asarray)(ours), timm - (name in FACTORS)
        assert ks_2samp(ours, timm).pvalue > 1e-3, name


def test_half_of_the_images_are_flipped():
    flip = Compose([step for step in RECIPE if step['type'] == 'mmpretrain.RandomFlip'])
    np.random.seed(0)
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    flipped = [not np.array_equal(flip(dict(img=image.copy()))['img'], image) for _ in range(5000)]
    assert np.mean(flipped) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(5000))
