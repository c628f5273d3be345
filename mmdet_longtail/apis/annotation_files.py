"""Selection and merge of COCO and LVIS annotation files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    COCO_URL,
    FEDERATED_KEYS,
    image_file_name,
    parse_annotations,
    select_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.class_names import read_class_map
from mmdet_longtail.utils.fileio import read_json, write_atomic


def keep_tail(
    annotation_file: str | Path, out: str | Path, fewer_than: int = 100
) -> None:
    """Write the annotations of the classes with few training boxes.

    Images without such an annotation are dropped. All categories stay in
    their order, so labels do not change. Prints the numbers kept.

    Args:
        annotation_file (str | Path): COCO or LVIS training annotations.
        out (str | Path): File to write.
        fewer_than (int): Limit; classes with fewer boxes are kept. Crowds do
            not count.

    Raises:
        LongTailError: If a file cannot be read or written, or if no class has
            so few boxes.
    """
    content = read_json(annotation_file)
    annotations = parse_annotations(content, str(annotation_file))
    statistics = ClassStatistics.from_annotations(annotations)
    is_tail = statistics.instance_count < fewer_than
    if not is_tail.any():
        raise LongTailError(
            f'{annotation_file}: no class has fewer than {fewer_than} boxes, '
            f'the rarest has {statistics.instance_count.min()}; give a larger '
            'limit'
        )
    tail_of = dict(zip(annotations.category_ids, is_tail, strict=True))
    part = select_annotations(
        content,
        (tail_of[a['category_id']] for a in content['annotations']),
        str(annotation_file),
    )
    write_atomic(out, json.dumps(part))
    print(
        f'{out}: {is_tail.sum()} of {len(is_tail)} classes have fewer than '
        f'{fewer_than} boxes; {len(part["annotations"])} of '
        f'{len(content["annotations"])} annotations and '
        f'{len(part["images"])} of {len(content["images"])} images are kept'
    )


def merge_annotations(
    main_file: str | Path,
    extra_file: str | Path,
    class_map: str | Path,
    out: str | Path,
    file_prefix: str = '',
) -> None:
    """Add images of another dataset to an annotation file.

    Images of the extra file with a box of a mapped class are added, with
    their boxes of mapped classes, and masks if they have any. Categories stay
    those of the main file, including the image counts in them.

    In a main file with ``neg_category_ids``, an added image is checked only
    for the classes that it has boxes of: its federated keys are empty lists.

    Args:
        main_file (str | Path): COCO or LVIS annotations.
        extra_file (str | Path): COCO or LVIS annotations of other images.
        class_map (str | Path): CSV file for `read_class_map`, with the
            columns extra and main.
        out (str | Path): File to write.
        file_prefix (str): Put before the file names of the extra images, to
            make them relative to the image folder of the main file.

    Raises:
        LongTailError: If a file cannot be read or written, the map does not
            fit, no box is mapped, or both files have an image.
    """
    main, extra = read_json(main_file), read_json(extra_file)
    parse_annotations(main, str(main_file))
    parse_annotations(extra, str(extra_file))
    main_of = read_class_map(
        class_map,
        [category['name'] for category in extra['categories']],
        [category['name'] for category in main['categories']],
        str(extra_file),
        str(main_file),
    )
    main_id = {c['name']: c['id'] for c in main['categories']}
    category_of = {
        category['id']: main_id[main_of[category['name']]]
        for category in extra['categories']
        if category['name'] in main_of
    }
    boxes = [
        a for a in extra['annotations'] if a['category_id'] in category_of
    ]
    if not boxes:
        raise LongTailError(
            f'{extra_file}: no box is of a class that {class_map} maps'
        )
    has_box = {box['image_id'] for box in boxes}
    entries = [image for image in extra['images'] if image['id'] in has_box]
    first = _next_id(main['images'])
    image_id = {entry['id']: i for i, entry in enumerate(entries, first)}
    images = [
        _converted_image(
            entry, main['images'][0], file_prefix, str(extra_file)
        )
        | {'id': image_id[entry['id']]}
        for entry in entries
    ]
    known = {image_file_name(image) for image in main['images']}
    for name in map(image_file_name, images):
        if name in known:
            raise LongTailError(
                f'{extra_file}: {name!r} is an image of {main_file}, too; '
                'boxes of the same images can be ignore_file of a dataset'
            )
    annotations = [
        {'area': box['bbox'][2] * box['bbox'][3]}
        | box
        | {
            'id': identity,
            'image_id': image_id[box['image_id']],
            'category_id': category_of[box['category_id']],
        }
        for identity, box in enumerate(boxes, _next_id(main['annotations']))
    ]
    merged = main | {
        'images': main['images'] + images,
        'annotations': main['annotations'] + annotations,
    }
    write_atomic(out, json.dumps(merged))
    num_classes = len(set(category_of.values()))
    print(
        f'{extra_file}: {len(images):,} images and {len(boxes):,} boxes of '
        f'{num_classes:,} classes added, '
        f'{len(extra["annotations"]) - len(boxes):,} boxes of other classes '
        f'left out\n{out}: {len(merged["images"]):,} images, '
        f'{len(merged["annotations"]):,} boxes'
    )


def _next_id(entries: Iterable[dict]) -> int:
    """Return the first integer above all ids."""
    ids = [e['id'] for e in entries if isinstance(e.get('id'), int)]
    return max(ids, default=0) + 1


def _converted_image(
    image: dict, main_image: dict, file_prefix: str, source: str
) -> dict[str, Any]:
    """Convert an image entry to the keys of the main file, without an id."""
    for key in ('width', 'height'):
        if not isinstance(image.get(key), int | float):
            raise LongTailError(
                f'{source}: image {image["id"]!r} has no {key!r} that is a '
                'number of pixels'
            )
    name = image_file_name(image)
    if not name:
        raise LongTailError(
            f"{source}: image {image['id']!r} has no 'file_name'"
        )
    if 'file_name' in main_image:
        file = {'file_name': file_prefix + name}
    else:  # as in LVIS v1
        file = {'coco_url': COCO_URL + file_prefix + name}
    size = {key: image[key] for key in ('width', 'height')}
    return (
        size | file | {key: [] for key in FEDERATED_KEYS if key in main_image}
    )
