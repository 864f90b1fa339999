"""Polygons that pycocotools reads back as the mask they were made of."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from smmix_mm.datasets.digit_scenes.polygons import mask_to_polygons


def read_back(polygons: list[list[float]], shape: tuple[int, int]) -> np.ndarray:
    if not polygons:
        return np.zeros(shape, bool)
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


@settings(deadline=None, max_examples=300)
@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_comes_back(mask):
    polygons = mask_to_polygons(mask)
    assert np.array_equal(read_back(polygons, mask.shape), mask)
    # pycocotools takes four numbers for a box.
    assert all(len(polygon) >= 8 for polygon in polygons)


def draw(*rows: str) -> np.ndarray:
    return np.array([[pixel == '#' for pixel in row] for row in rows])


@pytest.mark.parametrize(
    ('mask', 'count'),
    [
        (draw('....', '....'), 0),
        (draw('#'), 1),
        (draw('##..', '##..', '...#'), 2),
        (draw('#..', '.#.'), 1),
        (draw('###', '#.#', '###'), 2),
        (draw('#####', '#.#.#', '#####'), 3),
    ],
    ids=['empty', 'one pixel', 'two pieces', 'touching corners', 'a hole', 'two holes'],
)
def test_known_masks(mask, count):
    polygons = mask_to_polygons(mask)
    assert len(polygons) == count
    assert np.array_equal(read_back(polygons, mask.shape), mask)


def test_square_has_its_corners():
    (polygon,) = mask_to_polygons(draw('....', '.##.', '.##.'))
    assert {tuple(corner) for corner in np.reshape(polygon, (-1, 2))} == {(1, 1), (3, 1), (1, 3), (3, 3)}
