"""Checks images of your own in folders of classes, and splits them into training and validation.

    DATA_ROOT/
      <class>/<image>

--split 0.2 writes three files into DATA_ROOT: train.txt and val.txt, a fifth of each class, with one line for each
image, "<class>/<image> <label>", and classes.txt with the names of the classes. No image is moved. Images that cannot
be read are left out, and so are copies, so that no validation image is trained on. Files with the same content in
several classes are all left out. Without --split the images and the lists are only checked. All images are opened. The
exit status is 1 if there are problems.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from folders import Report, build_parser, find_copies, inspect, measure, read_image
from mmengine.fileio import list_from_file

from smmix_mm.datasets.image_folders import EXTENSIONS, PICTURES, refuse_undecodable
from smmix_mm.datasets.list_files import check_image_list
from smmix_mm.datasets.own_data import NAMES

LISTS = {'train': 'train.txt', 'val': 'val.txt'}
# Names of folders that hold parts of the data, and not one class.
SPLITS = {'train', 'val', 'test', 'training', 'validation'}


def find_images(root: Path, report: Report) -> dict[str, list[Path]]:
    """Lists the images of each class, and reports classes without images and pictures that are not read."""
    images: dict[str, list[Path]] = {}
    if not root.is_dir():
        report.refuse(root, 'does not exist')
        return images
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith('.')):
        files = sorted(path for path in folder.rglob('*') if path.is_file() and not path.name.startswith('.'))
        for path in files:
            try:
                refuse_undecodable(path)
            except ValueError as error:
                report.refuse(folder, str(error))
        images[folder.name] = [path for path in files if path.name.lower().endswith(EXTENSIONS)]
        unread = [path.name for path in files if path.suffix.lower() in {*PICTURES} - {*EXTENSIONS}]
        report.refuse(folder, f'pictures are not read, because they do not end with {", ".join(EXTENSIONS)}', unread)
        if not images[folder.name]:
            report.refuse(folder, 'is a class without images')
    if images and SPLITS.issuperset(images):
        report.refuse(
            root,
            f'holds {" and ".join(images)}, which are parts and no classes; if the classes are folders in them, do not '
            f'split anew: set data_prefix of each dataset, as docs/own_data.md shows',
        )
    if len(images) < 2:
        report.refuse(root, f'holds {len(images)} class folders, but needs at least 2')
    return images


def find_faulty(root: Path, images: Mapping[str, list[Path]], report: Report) -> tuple[set[Path], dict[str, str]]:
    """Finds images that cannot be read and copies, and the sizes of the others."""
    paths = [path for files in images.values() for path in files]
    sizes, readable = [], set()

    def look(path: Path) -> None:
        sizes.append(read_image(path).size)
        readable.add(path)

    inspect(root, paths, look, True, report, name=lambda path: path.relative_to(root).as_posix())
    class_of = {path: name for name, files in images.items() for path in files}
    copies = find_copies(path for path in paths if path in readable)
    conflicts = {pair for pair in copies.items() if class_of[pair[0]] != class_of[pair[1]]}
    for what, pairs in (
        ('files are copies of others', copies.items() - conflicts),
        ('files are copies of others in another class', conflicts),
    ):
        report.refuse(root, what, [' = '.join(str(path.relative_to(root)) for path in pair) for pair in sorted(pairs)])
    originals = {original for _, original in conflicts}
    return {*paths} - readable | copies.keys() | originals, measure(sizes)


def split(images: Mapping[str, list[Path]], share: float, seed: int) -> dict[str, list[tuple[Path, int]]]:
    """Draws the validation images of each class, at least one; the rest is for training, at least one too.

    Raises:
        SystemExit: If a class has fewer than two images.
    """
    rng = np.random.default_rng(seed)
    parts: dict[str, list[tuple[Path, int]]] = {'train': [], 'val': []}
    few = [f'{name} ({len(paths)})' for name, paths in images.items() if len(paths) < 2]
    if few:
        raise SystemExit(f'nothing was written: a class needs at least 2 images for --split, which {few} have not')
    for label, paths in enumerate(images.values()):
        number = min(max(1, round(len(paths) * share)), len(paths) - 1)
        chosen = {*rng.permutation(len(paths))[:number].tolist()}
        for index, path in enumerate(paths):
            parts['val' if index in chosen else 'train'].append((path, label))
    return parts


def write_lists(root: Path, parts: Mapping[str, list[tuple[Path, int]]], names: list[str]) -> None:
    for part, items in parts.items():
        lines = [f'{path.relative_to(root).as_posix()} {label}\n' for path, label in items]
        (root / LISTS[part]).write_text(''.join(lines), encoding='utf-8')
    (root / NAMES).write_text(''.join(f'{name}\n' for name in names), encoding='utf-8')


def check_lists(root: Path, images: Mapping[str, list[Path]], report: Report) -> None:
    """Reports faulty lines, images of both lists, and images of none."""
    listed: dict[str, set[Path]] = {}
    for part, name in LISTS.items():
        if not (root / name).is_file():
            report.refuse(root / name, 'does not exist')
            return
        try:
            check_image_list(root / name, root, {}, len(images), f'{part}_dataloader')
        except ValueError as error:
            report.refuse(root / name, str(error))
            return
        listed[part] = {root / line.rpartition(' ')[0] for line in list_from_file(root / name)}
        report.columns[part] = {
            'images': len(listed[part]),
            **{name: len(listed[part] & {*paths}) for name, paths in images.items()},
        }
    report.refuse(root, 'images are in both lists', sorted(map(str, listed['train'] & listed['val'])))
    paths = {path for files in images.values() for path in files}
    report.refuse(root, 'images are in no list', sorted(map(str, paths - listed['train'] - listed['val'])))


def main() -> None:
    parser = build_parser(__doc__, 'data/own')
    parser.add_argument('--split', type=float, help='share of the images for validation, such as 0.2')
    parser.add_argument('--seed', type=int, default=0, help='of the split; default: 0')
    args = parser.parse_args()
    if args.split is not None and not 0 < args.split < 1:
        raise SystemExit(f'--split has to be between 0 and 1, but got {args.split}')
    root, report = args.data_root, Report()
    images = find_images(root, report)
    if report.problems:
        report.finish()
    faulty, sizes = find_faulty(root, images, report)
    report.columns['all'] = {
        'images': sum(map(len, images.values())), **{name: len(paths) for name, paths in images.items()}, **sizes
    }  # fmt: skip
    present = [name for name in LISTS.values() if (root / name).is_file()]
    if args.split is None:
        if present:
            check_lists(root, images, report)
        report.finish()
        return
    if present:
        raise SystemExit(f'nothing was written: {root} already has {present}; delete them to split anew')
    usable = {name: [path for path in paths if path not in faulty] for name, paths in images.items()}
    write_lists(root, split(usable, args.split, args.seed), list(images))
    left_out, report.problems = report.problems, []
    check_lists(root, usable, report)
    for problem in left_out:
        print(f'left out: {problem}')
    report.finish()


if __name__ == '__main__':
    main()
