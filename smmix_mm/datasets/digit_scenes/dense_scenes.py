"""Draws pictures of several handwritten digits, partly overlapping, with a mask for each."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from .scenes import DigitSet, SceneStyle, blend, draw_clutter, draw_colour, finish, place


@dataclass(frozen=True)
class DenseStyle(SceneStyle):
    """Settings of pictures in addition to :class:`SceneStyle`; sizes in pixels.

    Attributes:
        digits: Smallest and largest number of digits to place; fewer if some find no place.
        max_hidden: Largest part of a digit that later ones may hide.
        empty_share: Fraction of pictures without any object.
        crowd_share: Fraction of pictures with a crowd: many tiny digits of one class, not labelled one by one.
        crowd_shape: Height and width of a crowd.
        crowd_digits: Smallest and largest number of digits in a crowd.
        crowd_digit_sizes: Smallest and largest side of the digits in a crowd.
    """

    shape: tuple[int, int] = (128, 160)
    digit_sizes: tuple[int, int] = (26, 44)
    fragments: tuple[int, int] = (3, 6)
    digits: tuple[int, int] = (2, 5)
    max_hidden: float = 0.35
    empty_share: float = 0.03
    crowd_share: float = 0.1
    crowd_shape: tuple[int, int] = (40, 48)
    crowd_digits: tuple[int, int] = (7, 10)
    crowd_digit_sizes: tuple[int, int] = (11, 15)


@dataclass(frozen=True)
class DenseScene:
    """A picture and its objects.

    Attributes:
        image: ``(H, W, 3)`` uint8, BGR.
        labels: Class of each digit, 0 to 9.
        masks: Visible part of each digit, ``(H, W)`` bool; no two overlap.
        crowd: Visible part of the crowd, ``(H, W)`` bool, or None.
        crowd_label: Class of the crowd's digits; unused without a crowd.
    """

    image: np.ndarray
    labels: list[int]
    masks: list[np.ndarray]
    crowd: np.ndarray | None
    crowd_label: int


# A digit that finds no place in this many tries is left out.
PLACE_TRIES = 10


def draw_dense_scene(digits: DigitSet, seed: list[int], style: DenseStyle = DenseStyle()) -> DenseScene:
    """Draws several digits over clutter; later digits may hide a part of earlier ones.

    Args:
        digits (DigitSet): Where the digits come from.
        seed (list[int]): Seed of the picture; the same seed gives the same picture.
        style (DenseStyle): Defaults to 128 x 160 pixels with two to five digits of 26 to 44.
    """
    rng = np.random.default_rng(seed)
    canvas = draw_clutter(digits, rng, style)
    has_objects, has_crowd = rng.random(2) >= (style.empty_share, 1 - style.crowd_share)
    crowd, crowd_label = None, 0
    if has_objects and has_crowd:
        crowd, crowd_label = _draw_crowd(canvas, digits, rng, style)
    labels, inks = [], []
    for _ in range(rng.integers(style.digits[0], style.digits[1] + 1) if has_objects else 0):
        index = rng.integers(len(digits.glyphs))
        ink = _find_place(digits.glyphs[index], inks, rng, style)
        if ink is not None:
            blend(canvas, ink, draw_colour(rng))
            inks.append(ink)
            labels.append(int(digits.labels[index]))
    masks = _visible([ink > 0.5 for ink in inks])
    if crowd is not None:
        for mask in masks:
            crowd = crowd & ~mask
    return DenseScene(finish(canvas, rng, style), labels, masks, crowd, crowd_label)


def _find_place(
    glyph: np.ndarray, inks: list[np.ndarray], rng: np.random.Generator, style: DenseStyle
) -> np.ndarray | None:
    """Finds a place for one more digit that leaves enough of the others visible, and returns its ink."""
    for _ in range(PLACE_TRIES):
        ink = place(glyph, style.digit_sizes, rng, style)
        masks = [other > 0.5 for other in (*inks, ink)]
        visible = _visible(masks)
        if all(seen.sum() >= (1 - style.max_hidden) * whole.sum() for seen, whole in zip(visible, masks, strict=True)):
            return ink
    return None


def _visible(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the part of each mask that later ones do not hide."""
    visible = []
    hidden = np.zeros_like(masks[0]) if masks else None
    for mask in reversed(masks):
        visible.append(mask & ~hidden)
        hidden |= mask
    return visible[::-1]


def _draw_crowd(
    canvas: np.ndarray, digits: DigitSet, rng: np.random.Generator, style: DenseStyle
) -> tuple[np.ndarray, int]:
    """Paints a crowd onto the canvas, and returns its mask and its class."""
    height, width = style.crowd_shape
    top = rng.integers(style.shape[0] - height + 1)
    left = rng.integers(style.shape[1] - width + 1)
    patch = canvas[top : top + height, left : left + width]
    label = int(digits.labels[rng.integers(len(digits.labels))])
    glyphs = digits.glyphs[digits.labels == label]
    ink = np.zeros(style.crowd_shape, np.float32)
    for _ in range(rng.integers(style.crowd_digits[0], style.crowd_digits[1] + 1)):
        glyph = glyphs[rng.integers(len(glyphs))]
        one = place(glyph, style.crowd_digit_sizes, rng, replace(style, shape=style.crowd_shape))
        blend(patch, one, draw_colour(rng))
        ink = np.maximum(ink, one)
    blob = np.zeros(style.shape, bool)
    inked = (ink > 0.5).astype(np.uint8)
    blob[top : top + height, left : left + width] = cv2.dilate(inked, np.ones((5, 5), np.uint8)) > 0
    return blob, label
