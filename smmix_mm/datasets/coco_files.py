"""Finds faults of COCO files that would silently lose data, or stop training after hours."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from .class_lists import differ, shorten

# mmdet and pycocotools index these; others have defaults.
IMAGE_FIELDS = ('id', 'file_name', 'height', 'width')
CATEGORY_FIELDS = ('id', 'name')
ANNOTATION_FIELDS = ('id', 'image_id', 'category_id', 'bbox', 'area')
# pycocotools indexes this one in evaluation.
EVALUATION_FIELDS = ('iscrowd',)


def find_empty_part(content: Any, loader: str) -> str | None:
    """Returns which parts a COCO file lacks, or None. Files of unlabelled test images have no annotations."""
    needed = ['images', 'categories', *([] if loader.startswith('test') else ['annotations'])]
    lacking = [key for key in needed if not (isinstance(content, dict) and content.get(key))]
    return f'holds no {" and no ".join(lacking)}' if lacking else None


def find_coco_fault(content: Mapping, classes: tuple[str, ...] | None, given: bool, loader: str) -> str | None:
    """Returns what is wrong with the content of a COCO file that has all its parts, or None.

    Args:
        content (Mapping): Content of the file.
        classes (tuple[str, ...], optional): The classes of the dataset, None if they are not known.
        given (bool): Whether the config names them; otherwise they are COCO's own.
        loader (str): The dataloader that reads the file.
    """
    annotations = content.get('annotations') or []
    evaluated = () if loader.startswith('train') else EVALUATION_FIELDS
    return (
        _find_lacking(content['images'], 'images', IMAGE_FIELDS)
        or _find_lacking(content['categories'], 'categories', CATEGORY_FIELDS)
        or _find_lacking(annotations, 'annotations', (*ANNOTATION_FIELDS, *evaluated))
        or _find_repeated(content['categories'])
        or _find_stray(content, annotations)
        or (classes and _find_class_fault(content, annotations, classes, given))
        or (_find_dropped(annotations) if annotations else None)
        or None
    )


def _find_lacking(items: list[Mapping], kind: str, fields: Iterable[str]) -> str | None:
    for field in fields:
        lacking = [item for item in items if item.get(field) is None]
        if lacking:
            example = f'id {lacking[0].get("id", lacking[0])}' if field != 'id' else str(lacking[0])
            return f'lacks the field {field!r} in {len(lacking)} of {len(items)} {kind}, first in {example}'
    return None


def _find_repeated(categories: list[Mapping]) -> str | None:
    for field in CATEGORY_FIELDS:
        repeated = [value for value, count in Counter(item[field] for item in categories).items() if count > 1]
        if repeated:
            return f'holds several categories with the {field} {shorten(repeated)}; it has to be unique'
    return None


def _find_stray(content: Mapping, annotations: list[Mapping]) -> str | None:
    """Finds annotations whose image or category does not exist."""
    for field, kind in (('category_id', 'categories'), ('image_id', 'images')):
        known = {item['id'] for item in content[kind]}
        stray = [item for item in annotations if item[field] not in known]
        if stray:
            return (
                f'has {len(stray)} of {len(annotations)} annotations with an unknown {field}, not among the {kind}; '
                f'they would be left out. The first has id {stray[0]["id"]} and {field} {stray[0][field]!r}'
            )
    return None


def _find_class_fault(
    content: Mapping, annotations: list[Mapping], classes: tuple[str, ...], given: bool
) -> str | None:
    names = tuple(category['name'] for category in content['categories'])
    missing, others = differ(names, classes)
    setting = 'metainfo.classes' if given else "COCO's 80 classes (the default of metainfo.classes)"
    # A config may use a part of the categories, but has to name them.
    if given and len(missing) == len(classes):
        return f'holds no objects of metainfo.classes, {classes}, but of {names}. {_suggest(names)}'
    if missing or (others and not given):
        objects = Counter(item['category_id'] for item in annotations)
        lost = sum(objects[item['id']] for item in content['categories'] if item['name'] in others)
        faults = [
            *([f'lacks the categories {shorten(missing)}'] if missing else []),
            *(
                [f'has the categories {shorten(others)} in addition ({lost} objects would be left out)']
                if others
                else []
            ),
        ]
        return f'does not fit {setting}: it {" and ".join(faults)}. {_suggest(names)}'
    chosen = tuple(name for name in names if name in classes)
    if chosen != classes:
        return (
            f'lists the categories {shorten(chosen)}, but the order of {setting} is {shorten(classes)}. mmdet '
            f'numbers them in the order of the file, so objects would get wrong class names. {_suggest(chosen)}'
        )
    ids = {category['id'] for category in content['categories'] if category['name'] in classes}
    if annotations and not any(annotation['category_id'] in ids for annotation in annotations):
        return f'holds no objects of metainfo.classes, {classes}, but of {names}'
    return None


def _suggest(names: tuple[str, ...]) -> str:
    return (
        f'Set metainfo=dict(classes={names}) in the datasets of all loaders, and num_classes of the heads to its length'
    )


def _find_dropped(annotations: list[Mapping]) -> str | None:
    """Finds boxes below a pixel, which mmdet leaves out: all of them, if coordinates are fractions of the image."""
    if all(item['area'] <= 0 or min(item['bbox'][2:]) < 1 for item in annotations):
        first = annotations[0]
        return (
            f'holds {len(annotations)} annotations, all with an area of 0 or a box below one pixel; they would be left '
            f'out. The first, of id {first["id"]}, has area={first["area"]} and bbox={first["bbox"]}. Boxes have to be '
            '[left, top, width, height] in pixels, areas in square pixels'
        )
    return None
