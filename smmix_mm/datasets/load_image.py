"""Reads images of every kind by one rule, independent of the library that decodes them."""

import io
from collections.abc import Mapping
from typing import Any

import cv2
import mmcv
import mmengine.fileio as fileio
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from smmix_mm.registry import TRANSFORMS

COLOR_TYPES = ('color', 'grayscale', 'unchanged', 'color_ignore_orientation', 'grayscale_ignore_orientation')
# Formats that a backend decodes as Pillow does, torchvision to the bit and the others up to rounding, if the image is
# plain; Pillow decodes the rest.
FORMATS = {'torchvision': ('JPEG',), 'pillow': (), 'cv2': ('JPEG', 'PNG'), 'turbojpeg': ('JPEG',)}
# PNG chunks that mark an animation or may hold an orientation, for which Pillow would have to decode the whole file.
PNG_EXTRAS = (
    b'acTL',
    b'eXIf',
    b'iTXtXML:com.adobe.xmp',
    *(kind + b'Raw profile type' for kind in (b'tEXt', b'zTXt', b'iTXt')),
)
# EXIF's tag, and the operation that turns each of its values upright.
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# The two quarter turns undo each other; all other operations undo themselves.
UNDONE_BY = {6: 8, 8: 6}
# Formats whose 16-bit integers Pillow converts to 32 bits.
FORMATS_OF_16_BITS = ('PNG', 'PPM')


class UnreadableImageError(OSError):
    """A file of the dataset is missing, truncated or not an image; our train loops replace it by another sample."""


class UnknownRangeError(ValueError):
    """An image is whole, but it is unknown which of its values is white."""


# mmdet's and mmseg's inferencers look for the step that loads images by these names, and replace its type by one of
# them. A step with _scope_='smmix_mm' keeps that scope when its type is replaced.
@TRANSFORMS.register_module(name=['LoadImage', 'LoadImageFromFile', 'LoadImageFromNDArray', 'InferencerLoader'])
class LoadImage(LoadImageFromFile):
    """Loads any image file as three channels of 8 bits, BGR. Errors name the file.

    It is mmcv's ``LoadImageFromFile`` with one rule for all backends:

    - 16 bits a channel: the high byte, as OpenCV does.
    - Integers of 32 bits: taken for 16 bits if their highest is 256 to 65535; refused otherwise, unless all are 0.
    - Floats: refused.
    - Grey and black and white: the same in all channels.
    - Palettes: their colours. CMYK: converted by Pillow, without colour profiles.
    - Alpha and transparency: dropped. Colours stay as they are stored, not blended with a background.
    - Orientation (EXIF): applied, unless ``color_type`` ends in ``'_ignore_orientation'``.
    - Animations and files of several pages: the first frame.

    The backend decodes JPEG of 8-bit grey and of RGB; ``'cv2'`` also PNG of these kinds, and formats that Pillow does
    not know. Pillow decodes all else, and the files that torchvision refuses. torchvision, the default, gives the
    pixels of Pillow, as in the recipes' own code, in two thirds of the time. OpenCV silently accepts a truncated JPEG
    and fills the rest with grey.

    Arrays from the libraries' inferencers, ``img`` without ``img_path``, are treated alike; floats are accepted with
    ``to_float32``, and assumed to be 0 to 255.

    Args:
        imdecode_backend (str): ``'torchvision'``, ``'pillow'``, ``'cv2'`` or ``'turbojpeg'``. Defaults to
            ``'torchvision'``.
        color_type (str): ``'color'``, ``'grayscale'``, which has no channel axis, either of them with
            ``'_ignore_orientation'``, or ``'unchanged'``, which is mmcv's and ignores the rule above. Defaults to
            ``'color'``.
        **kwargs: As in ``LoadImageFromFile``.

    Raises:
        ValueError: If the backend or ``color_type`` is unknown.
        UnreadableImageError: An ``OSError``, from :meth:`transform`, if the file is missing, truncated or not an image.
        UnknownRangeError: A ``ValueError``, from :meth:`transform`, if the image is refused.
    """

    def __init__(self, imdecode_backend: str = 'torchvision', color_type: str = 'color', **kwargs: Any) -> None:
        if color_type not in COLOR_TYPES:
            raise ValueError(f'color_type of LoadImage has to be one of {COLOR_TYPES}, but got {color_type!r}')
        if imdecode_backend not in FORMATS and color_type != 'unchanged':
            raise ValueError(
                f'imdecode_backend of LoadImage has to be one of {tuple(FORMATS)}, but got {imdecode_backend!r}, which '
                "needs color_type='unchanged'"
            )
        super().__init__(imdecode_backend=imdecode_backend, color_type=color_type, **kwargs)

    def transform(self, results: dict | str | np.ndarray) -> dict | None:
        if not isinstance(results, Mapping):
            # The input of mmseg's inferencer.
            results = {'img' if isinstance(results, np.ndarray) else 'img_path': results}
        path = results.get('img_path')
        if path is None and 'img' in results:
            # Already loaded by an inferencer.
            image = results['img'] if self.color_type == 'unchanged' else self._convert_array(results['img'])
        else:
            try:
                image = decode_image(self._read(path), self.color_type, self.imdecode_backend)
            except UnknownRangeError as error:
                raise UnknownRangeError(f'image {path} {error}') from error
            except Exception as error:
                if self.ignore_empty:
                    return None
                raise UnreadableImageError(f'image {path} cannot be read: {error}') from error
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _read(self, path: str) -> bytes:
        if self.file_client_args is not None:
            return fileio.FileClient.infer_client(self.file_client_args, path).get(path)
        return fileio.get(path, backend_args=self.backend_args)

    def _convert_array(self, array: np.ndarray) -> np.ndarray:
        if array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
            raise ValueError(
                f'LoadImage needs arrays of H x W, or of H x W with 1 to 4 channels, but got the shape {array.shape}'
            )
        if array.dtype == np.uint16:
            array = (array >> 8).astype(np.uint8)
        elif array.dtype != np.uint8 and not (self.to_float32 and array.dtype.kind == 'f'):
            raise UnknownRangeError(
                f'the array given to LoadImage is {array.dtype} from {array.min()} to {array.max()}, and the value '
                'of white is unknown; convert it to uint8, or to uint16 with 65535 as white'
            )
        if self.color_type.startswith('grayscale'):
            return array
        if array.ndim == 2 or array.shape[2] < 3:
            # Grey, with or without alpha.
            return np.stack([array if array.ndim == 2 else array[..., 0]] * 3, axis=-1)
        return array[..., :3]


def decode_image(content: bytes, color_type: str = 'color', backend: str = 'torchvision') -> np.ndarray:
    """Decodes the content of an image file by the rule of :class:`LoadImage`.

    Args:
        content (bytes): Content of the file.
        color_type (str): As in :class:`LoadImage`. Defaults to ``'color'``.
        backend (str): As in :class:`LoadImage`. Defaults to ``'torchvision'``.

    Returns:
        np.ndarray: ``(H, W, 3)``, BGR, or ``(H, W)`` if ``color_type`` is grey; of uint8.

    Raises:
        UnknownRangeError: A ``ValueError``, if it is unknown which value is white.
        OSError: If it is truncated or not an image; damaged images may raise other exceptions of the backend.
    """
    kind, _, ignored = color_type.partition('_')
    if backend == 'torchvision' and kind != 'color':
        # Its grey values are rounded in another way.
        backend = 'pillow'
    if color_type == 'unchanged':
        return _decode_by(backend, content, color_type)
    try:
        image = Image.open(io.BytesIO(content))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        if backend != 'cv2':
            raise
        return _decode_unknown(content, color_type)
    if image.format in FORMATS[backend] and image.mode in ('L', 'RGB') and (ignored or _is_plain(image, content)):
        try:
            return _decode_by(backend, content, color_type)
        except RuntimeError:
            # torchvision's: built without a decoder, or stricter than Pillow, which decides.
            pass
    # When it loads the pixels, Pillow turns TIFF upright, but no other format.
    stored = _find_orientation(image) if image.format == 'TIFF' else None
    image.load()
    turn = _find_orientation(image)
    if ignored:
        turn = None if stored in (None, turn) else UNDONE_BY.get(stored, stored)
    image = _to_8_bits(image)
    if turn in TURNS:
        image = image.transpose(TURNS[turn])
    mode = 'L' if kind == 'grayscale' else 'RGB'
    # Converting copies, even to the same mode.
    array = np.array(image if image.mode == mode else image.convert(mode))
    return array if mode == 'L' else cv2.cvtColor(array, cv2.COLOR_RGB2BGR)


def _decode_by(backend: str, content: bytes, color_type: str) -> np.ndarray:
    if backend == 'torchvision':
        image = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
        # Stored as (H, W, 3).
        return cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)
    array = mmcv.imfrombytes(content, flag=color_type, backend=backend)
    if array is None:
        raise OSError(f'{backend} cannot decode it')
    return array


def _decode_unknown(content: bytes, color_type: str) -> np.ndarray:
    """Decodes formats unknown to Pillow by OpenCV; refuses those it would clip, such as TIFF of three floats."""
    array = _decode_by('cv2', content, 'unchanged')
    if array.dtype not in (np.uint8, np.uint16):
        raise _refuse(str(array.dtype), array)
    return _decode_by('cv2', content, color_type)


def _is_plain(image: Image.Image, content: bytes) -> bool:
    """Whether the image is stored upright and is not an animation."""
    if image.format != 'PNG':
        return _find_orientation(image) == 1
    start = 8
    while start < len(content):
        if content.startswith(PNG_EXTRAS, start + 4):
            return False
        start += 12 + int.from_bytes(content[start : start + 4], 'big')
    return True


def _find_orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:
        # Broken EXIF raises a dozen types of errors. The pixels are fine, and OpenCV ignores it too.
        return 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Converts an image to grey or RGB of 8 bits."""
    if image.mode == 'F':
        raise _refuse('floats of mode F', np.asarray(image))
    if image.mode.startswith('I'):
        # Of any byte order.
        values = np.asarray(image.convert('I'))
        if image.mode == 'I':
            low, high = (0, 0) if image.format in FORMATS_OF_16_BITS else (values.min(), values.max())
            if low < 0 or 0 < high < 256 or high > 65535:
                raise _refuse('integers of mode I, 32 bits,', values)
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode in ('P', 'PA', 'LA'):
        # Converted directly to RGB, palettes with transparency make Pillow warn.
        image = image.convert('RGBA')
    return image if image.mode in ('L', 'RGB') else image.convert('RGB')


def _refuse(kind: str, values: np.ndarray) -> UnknownRangeError:
    return UnknownRangeError(
        f'holds {kind} from {values.min()} to {values.max()}, and the value of white is unknown; save it with 8 bits '
        'per channel, or with 16 bits and 65535 as white'
    )
