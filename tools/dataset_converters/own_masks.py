"""Checks images and masks of your own for segmentation, and writes the list of their values.

    DATA_ROOT/
      class_values.txt
      img_dir/{train,val}/<name>.<suffix of all images>
      ann_dir/{train,val}/<name>.<suffix of all masks>

class_values.txt has one line for each class, "<value> <name>", or "<red> <green> <blue> <name>" if colours stand for
the classes. The name "ignored" marks values that are no class. --write-values writes it with the values of all training
masks; then replace the made-up names by yours. All files are opened. The exit status is 1 if there are problems.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from folders import Report, build_parser, find_copies, inspect, measure, read_image
from PIL import Image

from smmix_mm.datasets.class_values import FILE, IGNORED, number_values, pack, read_class_values, read_mask, unpack
from smmix_mm.datasets.image_folders import list_pictures

SPLITS = ('train', 'val')
# With more values than this, a mask was resized or compressed, or shows no classes.
MAX_VALUES = 255


def has_colours(paths: Iterable[Path]) -> bool:
    """Whether a mask has several differing channels; a palette does not count as such."""
    for path in paths:
        try:
            with Image.open(path) as image:
                if len(image.getbands()) < 3:
                    continue
            read_mask(path, False)
        except ValueError:
            return True
        except OSError:
            continue
    return False


def write_values(root: Path, ignored: list[str]) -> None:
    """Writes ``class_values.txt`` from the training masks."""
    target, paths = root / FILE, list_pictures(root / 'ann_dir/train')
    if target.exists():
        raise SystemExit(f'{target} already exists; delete it to write it anew')
    colours = has_colours(paths)
    found: set[int] = set()
    for path in paths:
        found |= {*np.unique(read_mask(path, colours)).tolist()}
        if len(found) > MAX_VALUES:
            raise SystemExit(
                f'{path} and those before have over {MAX_VALUES} values; masks must not be JPEG or resized'
            )
    left_out = {tuple(map(int, value.split(','))) if ',' in value else int(value) for value in ignored}
    names = iter(range(len(found)))
    lines = []
    for value in (unpack(number, colours) for number in sorted(found)):
        name = IGNORED if value in left_out else f'class {next(names)}'
        lines.append(f'{" ".join(map(str, value)) if colours else value} {name}\n')
    target.write_text(''.join(lines), encoding='utf-8')
    print(f'wrote {target}; replace the names of its classes by yours:\n{"".join(lines)}', end='')


def verify_split(root: Path, split: str, report: Report) -> list[Path]:
    """Reports unpaired and unreadable files, and counts the masks that each class is in."""
    images, masks = root / 'img_dir' / split, root / 'ann_dir' / split
    known = read_class_values(root / FILE)
    colours = isinstance(known.values[0], tuple)
    values, ignored = pack(known.values, colours), pack(known.ignored, colours)
    there = {}
    for kind, folder in (('images', images), ('masks', masks)):
        there[kind] = {path.relative_to(folder).with_suffix('').as_posix(): path for path in list_pictures(folder)}
        if not there[kind]:
            report.refuse(folder, f'does not exist or holds no {kind}')
        suffixes = Counter(path.suffix for path in there[kind].values())
        if len(suffixes) > 1:
            report.refuse(folder, f'holds {kind} of several suffixes, of which mmseg reads one: {dict(suffixes)}')
    for kind, other, folder in (('images', 'masks', images), ('masks', 'images', masks)):
        report.refuse(folder, f'{kind} have no {other[:-1]}', sorted(there[kind].keys() - there[other].keys()))
    both = sorted(there['images'].keys() & there['masks'].keys())
    present, sizes = Counter(), []

    def look(name: str) -> None:
        size = read_image(there['images'][name]).size
        sizes.append(size)
        try:
            mask = read_mask(there['masks'][name], colours)
        except (OSError, ValueError) as error:
            raise ValueError(f'has a mask that cannot be read: {error}') from error
        if mask.shape != size[::-1]:
            raise ValueError(f'has {size[0]} x {size[1]} pixels, but its mask {mask.shape[1]} x {mask.shape[0]}')
        labels, unknown = number_values(mask, values, ignored)
        present.update(np.unique(labels).tolist())
        if unknown:
            listed = [unpack(value, colours) for value in unknown[:10]]
            raise ValueError(f'has a mask with values that {FILE} does not have: {listed} ({len(unknown)} in all)')

    opened = inspect(images, both, look, True, report)
    absent = [name for label, name in enumerate(known.names) if not present[label]]
    if split == 'train' and opened:
        report.refuse(masks, 'classes never occur', absent)
    report.columns[split] = {
        'images': len(there['images']),
        'masks': len(there['masks']),
        'opened': opened,
        **measure(sizes),
        **{f'masks with {name}': present[label] for label, name in enumerate(known.names)},
        f'masks with {IGNORED}': present[255],
    }
    return [*there['images'].values()]


def main() -> None:
    parser = build_parser(__doc__, 'data/own')
    parser.add_argument('--write-values', action='store_true', help=f'write {FILE} from the training masks')
    parser.add_argument('--ignored', nargs='+', default=[], help='with it: values that are no class, as 11 or 0,0,0')
    args = parser.parse_args()
    if args.write_values:
        write_values(args.data_root, args.ignored)
        return
    report, images = Report(), []
    if not (args.data_root / FILE).is_file():
        raise SystemExit(f'{args.data_root / FILE} does not exist; --write-values writes it from the masks')
    for split in SPLITS:
        images += verify_split(args.data_root, split, report)
    pairs = find_copies(images).items()
    report.refuse(args.data_root, 'images are copies of others', [' = '.join(map(str, pair)) for pair in pairs])
    report.finish()


if __name__ == '__main__':
    main()
