"""Values of masks become labels, whatever they are and however the file stores them."""

import numpy as np
import pytest
from PIL import Image

from smmix_mm.datasets import LoadLabelMap
from smmix_mm.datasets.class_values import number_values, pack, read_class_values, read_mask, unpack

RED, BLUE, BLACK = (255, 0, 0), (0, 0, 255), (0, 0, 0)


@pytest.mark.parametrize(
    ('lines', 'names', 'values', 'ignored'),
    [
        ('0 road\n128 traffic light\n\n11 ignored\n', ('road', 'traffic light'), (0, 128), (11,)),
        ('1000 a\n7 b\n', ('a', 'b'), (1000, 7), ()),
        ('0 0 255 sea\n255 0 0 2 wheels\n0 0 0 ignored\n', ('sea', '2 wheels'), (BLUE, RED), (BLACK,)),
        ('3 2 wheels\n1 ignored\n2 ignored\n4 Straße\n', ('2 wheels', 'Straße'), (3, 4), (1, 2)),
    ],
)
def test_file_of_values(tmp_path, lines, names, values, ignored):
    path = tmp_path / 'class_values.txt'
    path.write_text(lines, encoding='utf-8')
    found = read_class_values(path)
    assert (found.names, found.values, found.ignored) == (names, values, ignored)


@pytest.mark.parametrize(
    ('lines', 'named'),
    [
        ('0 road\nroad 1\n', "line 2 .* is 'road 1'"),
        ('0 road\n1\n', "line 2 .* is '1'"),
        ('0 road\n0 car\n', 'line 2 .* repeats the value 0'),
        ('0 road\n1 road\n', "line 2 .* repeats .* the name 'road'"),
        ('0 road\n1 2 3 car\n', 'mixes single values and colours'),
        ('0 road\n255 ignored\n', 'names 1 classes'),
        (''.join(f'{value} class {value}\n' for value in range(256)), 'names 256 classes'),
    ],
)
def test_faulty_lines_are_named(tmp_path, lines, named):
    path = tmp_path / 'class_values.txt'
    path.write_text(lines)
    with pytest.raises(ValueError, match=named):
        read_class_values(path)


def test_missing_file_names_the_command_that_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'own_masks\.py --write-values'):
        read_class_values(tmp_path / 'class_values.txt')


@pytest.mark.parametrize('values', [[0, 128, 200], [3, 1, 2], [70_000, 5]])
def test_labels_are_positions_among_the_values(values):
    """Against a loop over all pixels."""
    rng = np.random.default_rng(0)
    mask = rng.choice([*values, 11, 99], (6, 7))
    labels, unknown = number_values(mask, pack(values, False), pack([11], False))
    expected = [[values.index(value) if value in values else 255 for value in row] for row in mask.tolist()]
    assert labels.dtype == np.uint8
    assert labels.tolist() == expected
    assert unknown == [99]


def test_colours_are_told_apart_by_every_channel():
    colours = [(0, 0, 1), (0, 1, 0), (1, 0, 0), (255, 255, 255)]
    numbers = pack(colours, True)
    assert len({*numbers.tolist()}) == 4
    assert [unpack(number, True) for number in numbers.tolist()] == colours
    # Three classes are not a colour.
    assert pack((0, 1, 2), False).tolist() == [0, 1, 2]
    assert pack((), True).size == 0


EXPECTED = np.array([[0, 1, 1], [1, 0, 255]])
SINGLE = np.choose(np.minimum(EXPECTED, 2), [7, 200, 11])


def with_palette() -> Image.Image:
    image = Image.fromarray(SINGLE.astype(np.uint8), mode='P')
    image.putpalette([component for index in range(256) for component in (index, 255 - index, 3)])
    return image


MASKS = {
    'L': (lambda: Image.fromarray(SINGLE.astype(np.uint8)), [7, 200], [11]),
    'P': (with_palette, [7, 200], [11]),
    'P by colour': (with_palette, [(7, 248, 3), (200, 55, 3)], [(11, 244, 3)]),
    'RGB of equal channels': (lambda: Image.fromarray(SINGLE.astype(np.uint8)).convert('RGB'), [7, 200], [11]),
    'LA': (lambda: Image.fromarray(SINGLE.astype(np.uint8)).convert('LA'), [7, 200], [11]),
    'I;16': (lambda: Image.fromarray((SINGLE * 300).astype(np.uint16)), [2100, 60_000], [3300]),
    'RGB': (
        lambda: Image.fromarray(np.array([RED, BLUE, BLACK], dtype=np.uint8)[np.minimum(EXPECTED, 2)]),
        [RED, BLUE],
        [BLACK],
    ),
    'RGBA': (
        lambda: Image.fromarray(np.array([RED, BLUE, BLACK], dtype=np.uint8)[np.minimum(EXPECTED, 2)]).convert('RGBA'),
        [RED, BLUE],
        [BLACK],
    ),
}


@pytest.mark.parametrize('kind', MASKS)
def test_masks_of_every_kind_are_loaded(tmp_path, kind):
    make, values, ignored = MASKS[kind]
    make().save(tmp_path / 'mask.png')
    load = LoadLabelMap(num_classes=2, values=values, ignored=ignored)
    results = load(dict(seg_map_path=str(tmp_path / 'mask.png'), ori_shape=(2, 3)))
    assert results['gt_seg_map'].tolist() == EXPECTED.tolist()
    assert results['seg_fields'] == ['gt_seg_map']


def test_black_and_white_mask(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / 'mask.png')
    assert read_mask(tmp_path / 'mask.png', False).tolist() == [[1, 0]]


def test_undeclared_values_are_named(tmp_path):
    MASKS['L'][0]().save(tmp_path / 'mask.png')
    load = LoadLabelMap(num_classes=2, values=[7, 200])
    with pytest.raises(ValueError, match=r'mask\.png holds the values \[11\] \(1 in all\).*class_values\.txt'):
        load(dict(seg_map_path=str(tmp_path / 'mask.png')))
    MASKS['RGB'][0]().save(tmp_path / 'colours.png')
    with pytest.raises(OSError, match=r'colours\.png cannot be read: it is in colour'):
        load(dict(seg_map_path=str(tmp_path / 'colours.png')))


@pytest.mark.parametrize(
    'settings',
    [dict(num_classes=3, values=[0, 1]), dict(num_classes=2, values=[0, 1], reduce_zero_label=True)],
)
def test_values_have_to_fit_the_other_settings(settings):
    with pytest.raises(ValueError, match='one of values for each'):
        LoadLabelMap(**settings)
    with pytest.raises(ValueError, match='needs values'):
        LoadLabelMap(num_classes=2, ignored=[11])
