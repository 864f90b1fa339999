"""Unpacks and verifies ADE20K with the 150 classes of the Scene Parsing Benchmark.

Download ADEChallengeData2016.zip from http://data.csail.mit.edu/places/ADEchallenge/. It is unpacked to

    data/ade/ADEChallengeData2016/
      images/{training,validation}/<name>.jpg
      annotations/{training,validation}/<name>.png

An existing folder is not changed; without --archives it is only verified. The exit status is 1 if there are problems.
"""

from pathlib import Path

import numpy as np
from folders import Report, inspect, list_files, parse_args, read_image, unpack

ARCHIVE, FOLDER = 'ADEChallengeData2016.zip', 'ADEChallengeData2016'
# Number of images of the full data set, for comparison: a part of ADE20K is accepted.
ORIGINALS = {'training': 20210, 'validation': 2000}
# The value 0 means no class.
NUM_CLASSES = 150


def verify_split(root: Path, split: str, full: bool, report: Report) -> dict[str, int]:
    """Reports images without a label map, unreadable files, differing sizes and label values beyond the classes."""
    images, label_maps = root / 'images' / split, root / 'annotations' / split
    with_image = {name.removesuffix('.jpg') for name in list_files(images, '.jpg', report)}
    with_label_map = {name.removesuffix('.png') for name in list_files(label_maps, '.png', report)}
    if with_image and with_label_map:
        bare = [f'{name}.jpg' for name in sorted(with_image - with_label_map)]
        report.refuse(images, f'images have no label map in {label_maps}', bare)

    def look(name: str) -> None:
        image = read_image(images / f'{name}.jpg')
        try:
            label_map = read_image(label_maps / f'{name}.png')
        except ValueError as error:
            raise ValueError(f'has a label map that {error}') from error
        values = np.asarray(label_map)
        if values.shape != image.size[::-1]:
            raise ValueError(f'has the shape {image.size[::-1]}, but its label map has {values.shape}')
        beyond = sorted({*np.unique(values).tolist()} - {*range(NUM_CLASSES + 1)})
        if beyond:
            raise ValueError(f'has a label map with values beyond {NUM_CLASSES}: {beyond[:5]}')

    return {
        'images': len(with_image),
        'images of the original': ORIGINALS[split],
        'images without label map': len(with_image - with_label_map),
        'label maps without image': len(with_label_map - with_image),
        'opened': inspect(images, sorted(with_image & with_label_map), look, full, report),
    }


def main() -> None:
    args = parse_args(__doc__, f'data/ade/{FOLDER}')
    if args.archives:
        unpack(args.archives / ARCHIVE, FOLDER, args.data_root)
    report = Report()
    for split in ORIGINALS:
        report.columns[split] = verify_split(args.data_root, split, args.full, report)
    report.finish()


if __name__ == '__main__':
    main()
