"""One rule for images of all kinds, whichever backend decodes them: real files, whose pixels are known."""

import io
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from mmdet.apis import DetInferencer
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmpretrain.apis import ImageClassificationInferencer
from mmseg.apis import MMSegInferencer
from PIL import Image

from smmix_mm.datasets import LoadImage
from smmix_mm.datasets.load_image import UnknownRangeError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SIZE = (17, 23)
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, SIZE, dtype=np.uint8)
RGB = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, SIZE, dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, SIZE, dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (*SIZE, 3), dtype=np.uint16)
ALPHA16 = RNG.integers(0, 65536, SIZE, dtype=np.uint16)

both_backends = pytest.mark.parametrize('backend', ['torchvision', 'cv2'])


def load(path, backend='torchvision', **settings) -> np.ndarray:
    results = LoadImage(imdecode_backend=backend, **settings)(dict(img_path=str(path)))
    assert results['img_shape'] == results['ori_shape'] == results['img'].shape[:2]
    return results['img']


def three(grey) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


def with_pillow(array, suffix, mode=None, **settings):
    """A function that writes a file, in the mode of the array or one it is converted to."""

    def write(folder):
        image = Image.fromarray(array)
        image = image if mode is None else image.convert(mode)
        image.save(folder / f'picture{suffix}', **settings)

    return write


def with_opencv(array, suffix):
    """The same by OpenCV, which writes 16 bits; channels are given as RGB and RGBA."""
    order = {2: cv2.COLOR_RGB2BGR, 3: cv2.COLOR_RGBA2BGRA}
    stored = array if array.ndim == 2 else cv2.cvtColor(array, order[array.shape[2] - 1])
    return lambda folder: cv2.imwrite(str(folder / f'picture{suffix}'), stored)


def with_palette(suffix, **settings):
    """Indices 0 to 15 with a palette whose colours are not those of the indices."""

    def write(folder):
        image = Image.frombytes('P', SIZE[::-1], (GREY % 16).tobytes())
        image.putpalette(PALETTE.ravel().tolist())
        image.save(folder / f'picture{suffix}', **settings)

    return write


PALETTE = RNG.integers(0, 256, (16, 3), dtype=np.uint8)
PALETTE_RGB = PALETTE[GREY % 16]
CMYK = RNG.integers(0, 256, (*SIZE, 4), dtype=np.uint8)
INK = CMYK.astype(float)
BILEVEL = np.where(GREY > 127, 255, 0).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])

# What is written, and what is read, as RGB.
KINDS = {
    'grey 16 png': (with_opencv(GREY16, '.png'), three(GREY16 / 257)),
    'grey 16 tiff': (with_opencv(GREY16, '.tiff'), three(GREY16 / 257)),
    'grey 16 pgm': (with_opencv(GREY16, '.pgm'), three(GREY16 / 257)),
    'rgb 16 png': (with_opencv(RGB16, '.png'), RGB16 / 257),
    'rgb 16 tiff': (with_opencv(RGB16, '.tiff'), RGB16 / 257),
    'rgb 16 ppm': (with_opencv(RGB16, '.ppm'), RGB16 / 257),
    'rgba 16 png': (with_opencv(np.dstack([RGB16, ALPHA16]), '.png'), RGB16 / 257),
    'integers 32': (with_pillow(GREY16.astype(np.int32), '.tiff'), three(GREY16 / 257)),
    'black integers 32': (with_pillow(np.zeros(SIZE, np.int32), '.tiff'), three(np.zeros(SIZE))),
    'grey': (with_pillow(GREY, '.png'), three(GREY)),
    'grey gif': (with_pillow(GREY, '.gif'), three(GREY)),
    'bilevel png': (with_pillow(BILEVEL, '.png', '1', dither=None), three(BILEVEL)),
    'bilevel tiff': (with_pillow(BILEVEL, '.tiff', '1'), three(BILEVEL)),
    'rgb': (with_pillow(RGB, '.png'), RGB),
    'rgb bmp': (with_pillow(RGB, '.bmp'), RGB),
    'rgb webp': (with_pillow(RGB, '.webp', lossless=True), RGB),
    'transparent rgb': (with_pillow(RGB, '.png', transparency=tuple(RGB[0, 0].tolist())), RGB),
    'rgba': (with_pillow(RGBA, '.png'), RGB),
    'rgba tiff': (with_pillow(RGBA, '.tiff'), RGB),
    'rgba webp': (with_pillow(RGBA, '.webp', lossless=True, exact=True), RGB),
    'la': (with_pillow(np.dstack([three(GREY), ALPHA]), '.png', 'LA'), three(GREY)),
    'la tiff': (with_pillow(np.dstack([three(GREY), ALPHA]), '.tiff', 'LA'), three(GREY)),
    'palette': (with_palette('.png'), PALETTE_RGB),
    'palette gif': (with_palette('.gif'), PALETTE_RGB),
    'palette tiff': (with_palette('.tiff'), PALETTE_RGB),
    'transparent palette': (with_palette('.png', transparency=3), PALETTE_RGB),
    'transparent palette gif': (with_palette('.gif', transparency=3), PALETTE_RGB),
    'half transparent palette': (with_palette('.png', transparency=bytes(range(0, 160, 10))), PALETTE_RGB),
    'cmyk': (
        lambda folder: Image.frombytes('CMYK', SIZE[::-1], CMYK.tobytes()).save(folder / 'picture.tiff'),
        (255 - INK[..., :3]) * (255 - INK[..., 3:]) / 255,
    ),
}
each_kind = pytest.mark.parametrize('kind', KINDS)


def write(kind, folder) -> tuple[Path, np.ndarray]:
    save, expected = KINDS[kind]
    save(folder)
    (path,) = folder.glob('picture*')
    return path, expected


@pytest.mark.filterwarnings('error')
@each_kind
@both_backends
def test_every_kind_becomes_three_channels_of_8_bits(tmp_path, kind, backend):
    path, expected = write(kind, tmp_path)
    image = load(path, backend)
    assert (image.dtype, image.shape) == (np.uint8, (*SIZE, 3))
    assert np.abs(image[..., ::-1] - expected).max() <= 1
    # What any library may want to write to, or make a tensor of.
    assert image.flags.writeable or image.base.flags.writeable
    floats = load(path, backend, to_float32=True)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, image)


@each_kind
def test_backends_agree(tmp_path, kind):
    path, _ = write(kind, tmp_path)
    np.testing.assert_array_equal(load(path, 'pillow'), load(path, 'cv2'))
    grey = [load(path, backend, color_type='grayscale').astype(int) for backend in ('pillow', 'cv2')]
    assert grey[0].shape == grey[1].shape == SIZE
    assert np.abs(grey[0] - grey[1]).max() <= 1


# OpenCV reads no 32-bit integers, multiplies the colours of TIFF by alpha, and leaves transparent pixels of GIF black.
NOT_AS_OPENCV = ('integers 32', 'black integers 32', 'rgba tiff', 'la tiff', 'transparent palette gif')


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind not in NOT_AS_OPENCV])
def test_rule_is_that_of_opencv(tmp_path, kind):
    path, _ = write(kind, tmp_path)
    opencv = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if opencv is None:
        pytest.skip('this OpenCV does not read the format')
    assert np.abs(load(path).astype(int) - opencv).max() <= 1


def test_cmyk_jpeg(tmp_path):
    """JPEG stores its inks the other way round."""
    smooth = cv2.resize(RGB, (64, 64), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(smooth).convert('CMYK').save(tmp_path / 'picture.jpg', quality=100)
    assert Image.open(tmp_path / 'picture.jpg').mode == 'CMYK'
    for backend in ('pillow', 'cv2'):
        assert np.abs(load(tmp_path / 'picture.jpg', backend)[..., ::-1].astype(int) - smooth).mean() < 3


@both_backends
def test_first_frame_of_several(tmp_path, backend):
    frames = [Image.fromarray(array) for array in (RGB, RGB[::-1], 255 - RGB)]
    settings = dict(save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / 'picture.png', **settings)
    frames[0].save(tmp_path / 'picture.tiff', **settings)
    frames[0].save(tmp_path / 'picture.webp', lossless=True, **settings)
    # Pillow hides this picture from the animation, but other readers see nothing else.
    frames[0].save(tmp_path / 'default.png', default_image=True, **settings)
    for name in ('picture.png', 'picture.tiff', 'picture.webp', 'default.png'):
        assert Image.open(tmp_path / name).n_frames >= 3
        np.testing.assert_array_equal(load(tmp_path / name, backend)[..., ::-1], RGB)
    grey = [Image.fromarray(array) for array in (GREY, GREY[::-1], 255 - GREY)]
    grey[0].save(tmp_path / 'picture.gif', save_all=True, append_images=grey[1:])
    assert Image.open(tmp_path / 'picture.gif').n_frames == 3
    np.testing.assert_array_equal(load(tmp_path / 'picture.gif', backend), three(GREY))


# Refused


@both_backends
@pytest.mark.parametrize(('array', 'named'), [
    (np.float32([[0.0, 0.5], [0.75, 1.0]]), r'floats of mode F from 0\.0 to 1\.0'),
    (np.float32([[0.0, 200.0], [3.0, 255.0]]), r'floats of mode F from 0\.0 to 255\.0'),
    (np.int32([[0, 65536], [3, 4]]), 'integers of mode I, 32 bits, from 0 to 65536'),
    (np.int32([[-1, 1000], [3, 4]]), 'integers of mode I, 32 bits, from -1 to 1000'),
    # As 16 bits it would be black.
    (np.int32([[0, 255], [3, 4]]), 'integers of mode I, 32 bits, from 0 to 255'),
])  # fmt: skip
def test_values_of_unknown_range_are_refused(tmp_path, backend, array, named):
    path = tmp_path / 'picture.tiff'
    Image.fromarray(array).save(path)
    # ignore_empty is for files that are missing.
    for settings in (dict(), dict(ignore_empty=True), dict(color_type='grayscale')):
        with pytest.raises(UnknownRangeError) as error:
            load(path, backend, **settings)
        assert str(error.value).startswith(f'image {path} holds ')
        assert 'the value of white is unknown; save it with 8 bits per channel' in str(error.value)
    with pytest.raises(ValueError, match=named):
        load(path, backend)


@pytest.mark.parametrize('suffix', ['.tiff', '.hdr'])
def test_coloured_floats_are_refused(tmp_path, suffix):
    """Pillow knows neither; OpenCV would clip them."""
    path = tmp_path / f'picture{suffix}'
    cv2.imwrite(str(path), (RGB / 255).astype(np.float32))
    with pytest.raises(UnknownRangeError, match=rf'image {path} holds float32 from -?\d.* to \d'):
        load(path, 'cv2')
    with pytest.raises(OSError, match=f'image {path} cannot be read'):
        load(path, 'pillow')


def test_format_that_opencv_alone_knows(tmp_path):
    path = tmp_path / 'picture.ras'
    cv2.imwrite(str(path), RGB[..., ::-1])
    np.testing.assert_array_equal(load(path, 'cv2')[..., ::-1], RGB)


@pytest.mark.parametrize('settings', [dict(color_type='colour'), dict(imdecode_backend='tifffile')])
def test_unknown_settings_are_refused(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} of LoadImage has to be one of .*, but got '{value}'"):
        LoadImage(**settings)


def test_unchanged_is_mmcvs(tmp_path):
    path, _ = write('grey 16 png', tmp_path)
    np.testing.assert_array_equal(load(path, 'cv2', color_type='unchanged'), GREY16)


def test_missing_file_is_left_out_on_request(tmp_path):
    assert LoadImage(ignore_empty=True)(dict(img_path=str(tmp_path / 'gone.png'))) is None


# Orientation

# EXIF's meaning of each value, by numpy.
UPRIGHT = {
    1: lambda array: array,
    2: lambda array: array[:, ::-1],
    3: lambda array: array[::-1, ::-1],
    4: lambda array: array[::-1],
    5: lambda array: array.swapaxes(0, 1),
    6: lambda array: np.rot90(array, -1),
    7: lambda array: np.rot90(array, 2).swapaxes(0, 1),
    8: np.rot90,
}


@both_backends
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tiff', '.webp'])
@pytest.mark.parametrize('value', UPRIGHT)
def test_orientation(tmp_path, backend, suffix, value):
    # Tiles of one colour outlast JPEG.
    tiles = np.kron(RGB[:2, :3], np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = value
    path = tmp_path / f'picture{suffix}'
    settings = (
        dict(quality=100, subsampling=0) if suffix == '.jpg' else dict(lossless=True) if suffix == '.webp' else {}
    )
    Image.fromarray(tiles).save(path, exif=exif, **settings)
    for color_type, expected in (('color', UPRIGHT[value](tiles)), ('color_ignore_orientation', tiles)):
        image = load(path, backend, color_type=color_type)[..., ::-1]
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).max() <= 3
        grey = load(path, backend, color_type=color_type.replace('color', 'grayscale'))
        assert np.abs(grey - expected @ [0.299, 0.587, 0.114]).max() <= 3


@both_backends
def test_orientation_of_16_bits(tmp_path, backend):
    path = tmp_path / 'picture.png'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GREY16).save(path, exif=exif)
    turned = load(path, backend)
    np.testing.assert_array_equal(turned, three(np.rot90(GREY16 >> 8, -1)))


@both_backends
def test_broken_exif_does_not_hide_the_pixels(tmp_path, backend):
    path = tmp_path / 'picture.jpg'
    Image.fromarray(np.full((16, 24, 3), 90, np.uint8)).save(path, exif=b'Exif\x00\x00broken beyond repair')
    assert np.abs(load(path, backend).astype(int) - 90).max() <= 1


# Arrays of the inferencers


@pytest.mark.parametrize(('array', 'expected'), [
    (RGB, RGB),
    (RGBA, RGB),
    (GREY, three(GREY)),
    (GREY[..., None], three(GREY)),
    (np.dstack([GREY, ALPHA]), three(GREY)),
    (RGB16, RGB16 >> 8),
    (GREY16, three(GREY16 >> 8)),
])  # fmt: skip
def test_arrays(array, expected):
    for handed in (array, dict(img=array), dict(img=array, img_path=None)):
        results = LoadImage()(handed)
        assert results['img'].dtype == np.uint8
        np.testing.assert_array_equal(results['img'], expected)
        assert results['img_shape'] == results['ori_shape'] == SIZE


def test_arrays_of_unknown_range_are_refused():
    with pytest.raises(UnknownRangeError, match=r'the array given to LoadImage is float32 from 0\.\d+ to '):
        LoadImage()(dict(img=(RGB / 255).astype(np.float32)))
    with pytest.raises(ValueError, match=r'needs arrays .* but got the shape \(17, 23, 5\)'):
        LoadImage()(dict(img=np.zeros((*SIZE, 5), np.uint8)))
    floats = RGB.astype(np.float32)
    np.testing.assert_array_equal(LoadImage(to_float32=True)(dict(img=floats))['img'], floats)


# Testing and inference


@pytest.fixture
def pictures(tmp_path):
    """The same picture with 16 and with 8 bits."""
    high = np.random.default_rng(1).integers(0, 65536, (100, 141), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / '16.png'), high)
    cv2.imwrite(str(tmp_path / '8.png'), three((high >> 8).astype(np.uint8)))
    return str(tmp_path / '16.png'), str(tmp_path / '8.png')


@pytest.mark.parametrize('name', [
    'coco_detection_bs2_1333x800', 'coco_instance_bs2_1333x800', 'ade20k_bs2_512x512',
    'digit_scenes_bs8_128x128', 'digit_scenes_instance_bs8_160x128',
])  # fmt: skip
def test_pipelines_test_as_they_validate_and_train(name, pictures):
    cfg = Config.fromfile(CONFIGS / f'_base_/datasets/{name}.py')
    # Of which library makes no difference.
    init_default_scope('mmseg' if 'mmseg.Resize' in str(cfg.val_pipeline) else 'mmdet')
    loaded = []
    for step in ('train', 'val', 'test'):
        (load_image,) = Compose(cfg[f'{step}_pipeline'][:1]).transforms
        assert type(load_image) is LoadImage
        loaded += [load_image(dict(img_path=path))['img'] for path in pictures]
    assert 100 < loaded[0].mean() < 155
    for image in loaded[1:]:
        np.testing.assert_array_equal(image, loaded[0])
    assert [step['type'] for step in cfg.test_pipeline[1:]] == [step['type'] for step in cfg.val_pipeline[1:]]


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(('inferencer', 'config'), [
    (DetInferencer, 'mask_rcnn/mask-rcnn_pvt-mini-scratch_fpn_1xb8-3e_digit-scenes.py'),
    (MMSegInferencer, 'sem_fpn/fpn_pvt-mini-scratch_1xb8-300_digit-scenes-128x128.py'),
])  # fmt: skip
def test_inferencers_of_dense_tasks(pictures, inferencer, config):
    pipeline = inferencer(str(CONFIGS / config), device='cpu').pipeline
    first, second = (pipeline(path)['inputs'] for path in pictures)
    assert 100 < first.float().mean() < 155
    assert first.equal(second)


@pytest.mark.filterwarnings('ignore')
def test_inferencer_of_classifiers(pictures):
    config = CONFIGS / 'smmix/pvt-mini_smmix_1xb32-8e_digit-scenes.py'
    inferencer = ImageClassificationInferencer(str(config), device='cpu', classes=[str(digit) for digit in range(10)])
    inputs = [batch['inputs'][0] for path in pictures for batch in inferencer.preprocess([path])]
    assert inputs[0].equal(inputs[1])
    # It reads files by itself, arrays come as they are.
    array = cv2.imread(pictures[0], cv2.IMREAD_UNCHANGED)
    (batch,) = inferencer.preprocess([array])
    assert batch['inputs'][0].equal(inputs[0])


def test_other_libraries_keep_their_loader():
    for scope in ('mmpretrain', 'mmdet', 'mmseg'):
        init_default_scope(scope)
        (stock,) = Compose([dict(type='LoadImageFromFile')]).transforms
        assert type(stock) is mmcv.transforms.LoadImageFromFile


def test_content_is_not_read_by_name(tmp_path):
    """A JPEG called PNG, as ImageNet has, is a JPEG."""
    content = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 40, np.uint8)).save(content, 'JPEG')
    (tmp_path / 'picture.png').write_bytes(content.getvalue())
    for backend in ('pillow', 'cv2'):
        assert np.abs(load(tmp_path / 'picture.png', backend).astype(int) - 40).max() <= 1
