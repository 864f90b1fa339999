"""Draws pictures of real handwritten digits over clutter.

The digits are the 1 797 of 8 x 8 pixels in scikit-learn (UCI, Optical Recognition of Handwritten Digits).
Everything else about a picture is drawn from its own seed, so that the same seed gives the same bytes.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

NUM_CLASSES = 10
SPLITS = ('train', 'val')


@dataclass(frozen=True)
class DigitSet:
    """Original digits of one split.

    Attributes:
        glyphs: ``(N, 8, 8)`` float32, ink from 0 to 1.
        labels: ``(N,)`` int64, 0 to 9.
    """

    glyphs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class SceneStyle:
    """Settings of pictures; sizes in pixels.

    Attributes:
        shape: Height and width of the picture.
        digit_sizes: Smallest and largest side of the digit.
        max_angle: Largest rotation of a digit in degrees, in either direction.
        fragments: Smallest and largest number of fragments of other digits.
        fragment_sizes: Smallest and largest side of the digits that fragments are cut from.
        fragment_light: Brightness of fragments relative to the digit.
        noise: Standard deviation of the noise, of 255.
    """

    shape: tuple[int, int] = (64, 64)
    digit_sizes: tuple[int, int] = (24, 40)
    max_angle: float = 12.0
    fragments: tuple[int, int] = (1, 3)
    fragment_sizes: tuple[int, int] = (12, 20)
    fragment_light: float = 0.6
    noise: float = 6.0


@lru_cache
def load_split(split: str) -> DigitSet:
    """Loads the original digits of a split; none is in both.

    Args:
        split (str): ``'train'`` (four fifths) or ``'val'``, stratified by class.
    """
    # Imported here, because other datasets do not need scikit-learn.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    glyphs = (digits.images / 16).astype(np.float32)
    indices = train_test_split(np.arange(len(glyphs)), test_size=0.2, random_state=0, stratify=digits.target)
    chosen = np.sort(indices[SPLITS.index(split)])
    return DigitSet(glyphs[chosen], digits.target[chosen].astype(np.int64))


def draw_scene(digits: DigitSet, seed: list[int], style: SceneStyle = SceneStyle()) -> tuple[np.ndarray, int]:
    """Draws one digit at a random place, angle and colour, over noise and fragments of other digits.

    Args:
        digits (DigitSet): Where the digit and the fragments come from.
        seed (list[int]): Seed of the picture.
        style (SceneStyle): Defaults to 64 x 64 pictures with digits of 24 to 40 pixels.

    Returns:
        tuple[np.ndarray, int]: ``(*shape, 3)`` uint8, and the label.
    """
    rng = np.random.default_rng(seed)
    canvas, ink, label = _draw_parts(digits, rng, style)
    blend(canvas, ink, draw_colour(rng))
    return finish(canvas, rng, style), label


def draw_ink(digits: DigitSet, seed: list[int], style: SceneStyle = SceneStyle()) -> np.ndarray:
    """Draws only the ink of the digit, without fragments, as it is in :func:`draw_scene` of the same arguments.

    Returns:
        np.ndarray: ``shape``, float32 from 0 to 1.
    """
    return _draw_parts(digits, np.random.default_rng(seed), style)[1]


def _draw_parts(digits: DigitSet, rng: np.random.Generator, style: SceneStyle) -> tuple[np.ndarray, np.ndarray, int]:
    """The canvas with clutter, the ink of the digit, and its label."""
    canvas = draw_clutter(digits, rng, style)
    index = rng.integers(len(digits.glyphs))
    return canvas, place(digits.glyphs[index], style.digit_sizes, rng, style), int(digits.labels[index])


def draw_clutter(digits: DigitSet, rng: np.random.Generator, style: SceneStyle) -> np.ndarray:
    """Draws a smooth dark colour field with fragments of digits, ``(*shape, 3)`` float32 from 0 to 255."""
    corners = rng.uniform(0, 70, 3) + rng.uniform(-20, 20, (3, 3, 3))
    canvas = cv2.resize(corners.astype(np.float32), style.shape[::-1], interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(style.fragments[0], style.fragments[1] + 1)):
        glyph = _cut_fragment(digits.glyphs[rng.integers(len(digits.glyphs))], rng)
        blend(canvas, place(glyph, style.fragment_sizes, rng, style), style.fragment_light * draw_colour(rng))
    return canvas


def draw_colour(rng: np.random.Generator) -> np.ndarray:
    """Draws a bright colour of any hue."""
    colour = rng.uniform(140, 255, 3)
    colour[rng.integers(3)] = 255
    return colour.astype(np.float32)


def _cut_fragment(glyph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cuts a third to a half out of a glyph, too little to read."""
    kept = np.zeros_like(glyph)
    rows = slice(0, 8)
    start = rng.integers(0, 6)
    cols = slice(start, start + 3)
    window = (rows, cols) if rng.random() < 0.5 else (cols, rows)
    kept[window] = glyph[window]
    return kept


def place(glyph: np.ndarray, sizes: tuple[int, int], rng: np.random.Generator, style: SceneStyle) -> np.ndarray:
    """Rotates, scales and moves a glyph inside a picture, and returns its ink: ``shape``, float32 from 0 to 1."""
    side = rng.uniform(*sizes)
    angle = rng.uniform(-style.max_angle, style.max_angle)
    centre = rng.uniform(side / 2, np.array(style.shape[::-1]) - side / 2)
    middle = (glyph.shape[0] - 1) / 2
    matrix = cv2.getRotationMatrix2D((middle, middle), angle, side / glyph.shape[0])
    matrix[:, 2] += centre - middle
    ink = cv2.warpAffine(glyph, matrix, style.shape[::-1], flags=cv2.INTER_CUBIC)
    # Thin strokes are grey in the originals; here they have to stand out from the clutter.
    return (2 * ink).clip(0, 1)


def blend(canvas: np.ndarray, ink: np.ndarray, colour: np.ndarray) -> None:
    """Paints a colour onto a canvas in place, weighted by the ink."""
    canvas += ink[..., None] * (colour - canvas)


def finish(canvas: np.ndarray, rng: np.random.Generator, style: SceneStyle) -> np.ndarray:
    """Adds the noise: ``(*shape, 3)`` uint8."""
    canvas += style.noise * rng.standard_normal(canvas.shape, dtype=np.float32)
    return canvas.round().clip(0, 255).astype(np.uint8)
