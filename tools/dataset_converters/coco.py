"""Unpacks and verifies COCO 2017.

Download train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download. They are
unpacked to

    data/coco/
      annotations/instances_{train,val}2017.json
      train2017/<image>
      val2017/<image>

Existing folders are not changed; without --archives they are only verified. The exit status is 1 if there are problems.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from folders import Report, inspect, list_files, parse_args, read_image, unpack

ARCHIVES = {'train2017': 'train2017.zip', 'val2017': 'val2017.zip', 'annotations': 'annotations_trainval2017.zip'}
# Numbers of images and annotations of the full data set, for comparison: a part of COCO is accepted.
ORIGINALS = {'train2017': (118287, 860001), 'val2017': (5000, 36781)}
NUM_CATEGORIES = 80
KEYS = {
    'images': ('id', 'file_name', 'height', 'width'),
    'annotations': ('id', 'image_id', 'category_id', 'bbox', 'area'),
    'categories': ('id', 'name'),
}


def read_annotations(path: Path, report: Report) -> dict | None:
    """Reads an annotation file if it has the required keys."""
    if not path.is_file():
        report.refuse(path, 'does not exist')
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        report.refuse(path, f'({path.stat().st_size} bytes) is truncated or not JSON: {error}')
        return None
    known = len(report.problems)
    for part, keys in KEYS.items():
        items = content.get(part) if isinstance(content, dict) else None
        if not isinstance(items, list) or not items:
            report.refuse(path, f'holds no {part}')
            continue
        bare = [item for item in items if not (isinstance(item, dict) and item.keys() >= set(keys))]
        report.refuse(path, f'{part} lack one of {", ".join(keys)}', bare)
    return content if len(report.problems) == known else None


def verify_annotations(path: Path, content: Mapping, report: Report) -> dict[str, int]:
    """Reports objects that cannot be trained on, and collects counts."""
    annotations = content['annotations']
    ids = {part: Counter(item['id'] for item in content[part]) for part in KEYS}
    for part, counts in ids.items():
        report.refuse(path, f'ids are used by several {part}', [key for key, count in counts.items() if count > 1])
    for part, key in (('images', 'image_id'), ('categories', 'category_id')):
        lost = [annotation['id'] for annotation in annotations if annotation[key] not in ids[part]]
        report.refuse(path, f'annotations whose {key} is not among the {part}; ids', lost)
    crowds = [annotation for annotation in annotations if annotation.get('iscrowd')]
    flat = [item for item in annotations if min(item['bbox'][2:]) < 1 or item['area'] <= 0]
    return {
        'annotations': len(annotations),
        'crowds': len(crowds),
        'boxes without area (mmdet drops them)': len(flat),
        'images without objects': len(ids['images'].keys() - {annotation['image_id'] for annotation in annotations}),
        'categories': len(ids['categories']),
    }


def find_bare(annotations: Sequence[Mapping]) -> list[int]:
    """The ids of annotations without segmentation. Crowds need none, since they are not trained on."""
    return [item['id'] for item in annotations if not item.get('segmentation') and not item.get('iscrowd')]


def verify_images(folder: Path, images: Sequence[Mapping], full: bool, report: Report) -> dict[str, int]:
    """Reports images that are missing, unreadable, or of another size than annotated."""
    there = set(list_files(folder, '', report))
    listed = {image['file_name'] for image in images}
    if there:
        report.refuse(folder, 'images are missing', sorted(listed - there))

    def look(image: Mapping) -> None:
        found, needed = read_image(folder / image['file_name']).size, (image['width'], image['height'])
        if found != needed:
            raise ValueError(f'has {found[0]} x {found[1]} pixels, but {needed[0]} x {needed[1]} in the annotations')

    whole = [image for image in images if image['file_name'] in there]
    return {
        'images': len(images),
        'missing': len(listed - there),
        'files that are not annotated': len(there - listed),
        'opened': inspect(folder, whole, look, full, report, name=lambda image: image['file_name']),
    }


def main() -> None:
    args = parse_args(__doc__, 'data/coco')
    if args.archives:
        for folder, archive in ARCHIVES.items():
            unpack(args.archives / archive, folder, args.data_root / folder)
    report, categories = Report(), {}
    for split in ORIGINALS:
        path = args.data_root / f'annotations/instances_{split}.json'
        content = read_annotations(path, report)
        if content is None:
            list_files(args.data_root / split, '', report)
            continue
        report.columns[split] = verify_images(args.data_root / split, content['images'], args.full, report)
        report.columns[split] |= verify_annotations(path, content, report)
        images, annotations = ORIGINALS[split]
        report.columns[split] |= {'images of the original': images, 'annotations of the original': annotations}
        report.refuse(
            path,
            'annotations have no segmentation, which Mask R-CNN needs; ids',
            find_bare(content['annotations']),
        )
        number = report.columns[split]['categories']
        if number != NUM_CATEGORIES:
            report.refuse(path, f'has to hold {NUM_CATEGORIES} categories, but holds {number}')
        categories[split] = {category['id']: category['name'] for category in content['categories']}
    if len(categories) == len(ORIGINALS) and categories['train2017'] != categories['val2017']:
        report.refuse(args.data_root / 'annotations', 'the categories of train2017 and val2017 differ')
    report.finish()


if __name__ == '__main__':
    main()
