"""Checks images of your own with annotations in COCO's format.

    DATA_ROOT/
      annotations/instances_{train,val}.json
      {train,val}/<image>

All images are opened. The exit status is 1 if there are problems.
"""

from collections import Counter

from coco import find_bare, read_annotations, verify_annotations, verify_images
from folders import Report, build_parser, find_copies, list_files, measure

from smmix_mm.datasets.coco_files import find_coco_fault


def main() -> None:
    root, report = build_parser(__doc__, 'data/own').parse_args().data_root, Report()
    names: dict[str, tuple[str, ...]] = {}
    files = []
    for split in ('train', 'val'):
        path = root / f'annotations/instances_{split}.json'
        content = read_annotations(path, report)
        present = list_files(root / split, '', report)
        files += [root / split / name for name in present]
        if content is None:
            continue
        images, annotations = content['images'], content['annotations']
        names[split] = tuple(category['name'] for category in content['categories'])
        fault = find_coco_fault(content, names.get('train', names[split]), True, f'{split}_dataloader')
        if fault:
            report.refuse(path, fault)
        objects = Counter(annotation['category_id'] for annotation in annotations)
        counts = verify_images(root / split, images, True, report)
        counts |= measure([(image['width'], image['height']) for image in images])
        counts |= verify_annotations(path, content, report)
        counts['objects without outline (Mask R-CNN needs them)'] = len(find_bare(annotations))
        counts |= {f'objects: {item["name"]}': objects[item['id']] for item in content['categories']}
        report.columns[split] = counts
    pairs = find_copies(files).items()
    report.refuse(root, 'files are copies of others', [' = '.join(map(str, pair)) for pair in pairs])
    report.finish()


if __name__ == '__main__':
    main()
