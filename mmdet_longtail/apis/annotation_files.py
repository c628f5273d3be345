"""Selection and merge of COCO and LVIS annotation files."""

import json
from collections.abc import Iterable
from itertools import compress
from pathlib import Path
from typing import Any

from mmdet_longtail.errors import check, errors_of
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
        fewer_than (int): Limit of the boxes per class, without crowds.

    Raises:
        LongTailError: If a file cannot be read or written, or if no class has
            so few boxes.
    """
    source = str(annotation_file)
    content = read_json(source)
    annotations = parse_annotations(content, source)
    counts = ClassStatistics.from_annotations(annotations).instance_count
    is_tail = counts < fewer_than
    check(
        is_tail.any(),
        f'{source}: no class has fewer than {fewer_than} boxes, the rarest '
        f'has {counts.min()}; give a larger limit',
    )
    tail = {*compress(annotations.category_ids, is_tail)}
    is_kept = (a['category_id'] in tail for a in content['annotations'])
    part = select_annotations(content, is_kept, source)
    write_atomic(out, json.dumps(part))
    print(
        f'{out}: {len(tail)} of {len(counts)} classes have fewer than '
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
    for the classes of its boxes: its federated keys are empty lists.

    Args:
        main_file (str | Path): COCO or LVIS annotations.
        extra_file (str | Path): COCO or LVIS annotations of other images.
        class_map (str | Path): CSV file for `read_class_map`.
        out (str | Path): File to write.
        file_prefix (str): Prefix of the extra images' file names, relative to
            the image folder of the main file.

    Raises:
        LongTailError: If a file cannot be read or written, the map does not
            fit, no box is mapped, or both files have an image.
    """
    main, extra = read_json(main_file), read_json(extra_file)
    main_classes = parse_annotations(main, str(main_file))
    extra_classes = parse_annotations(extra, str(extra_file))
    main_of = read_class_map(class_map, extra_classes, main_classes)
    id_of = dict(zip(main_classes.class_names, main_classes.category_ids))
    category_of = {
        category: id_of[main_of[name]]
        for category, name in zip(
            extra_classes.category_ids, extra_classes.class_names
        )
        if name in main_of
    }
    is_mapped = [a['category_id'] in category_of for a in extra['annotations']]
    check(
        any(is_mapped),
        f'{extra_file}: no box is of a class that {class_map} maps',
    )
    part = select_annotations(extra, is_mapped, str(extra_file))
    with errors_of(extra_file):
        images = [
            _convert_image(image, identity, file_prefix, main['images'][0])
            for identity, image in enumerate(
                part['images'], _next_id(main['images'])
            )
        ]
        known = {image_file_name(image) for image in main['images']}
        for name in map(image_file_name, images):
            check(
                name not in known,
                f'{name!r} is an image of {main_file}, too; boxes of the '
                'same images can be ignore_file of a dataset',
            )
    image_id = {
        old['id']: image['id'] for old, image in zip(part['images'], images)
    }
    boxes = [
        {'area': box['bbox'][2] * box['bbox'][3]}
        | box
        | {
            'id': identity,
            'image_id': image_id[box['image_id']],
            'category_id': category_of[box['category_id']],
        }
        for identity, box in enumerate(
            part['annotations'], _next_id(main['annotations'])
        )
    ]
    merged = main | {
        'images': main['images'] + images,
        'annotations': main['annotations'] + boxes,
    }
    write_atomic(out, json.dumps(merged))
    print(
        f'{extra_file}: {len(images):,} images and {len(boxes):,} boxes of '
        f'{len({*category_of.values()}):,} classes added, '
        f'{len(is_mapped) - len(boxes):,} boxes of other classes left out\n'
        f'{out}: {len(merged["images"]):,} images, '
        f'{len(merged["annotations"]):,} boxes'
    )


def _next_id(entries: Iterable[dict]) -> int:
    """Return the first integer above all ids."""
    ids = [e['id'] for e in entries if isinstance(e.get('id'), int)]
    return max(ids, default=0) + 1


def _convert_image(
    image: dict, identity: int, file_prefix: str, main_image: dict
) -> dict[str, Any]:
    """Convert an image entry to the keys of the main file."""
    owner = f'image {image["id"]!r}'
    for key in ('width', 'height'):
        check(
            isinstance(image.get(key), int | float),
            f'{owner} has no {key!r} that is a number of pixels',
        )
    name = image_file_name(image)
    check(name, f"{owner} has no 'file_name'")
    converted = {key: image[key] for key in ('width', 'height')}
    if 'file_name' in main_image:
        converted['file_name'] = file_prefix + name
    else:  # as in LVIS v1
        converted['coco_url'] = COCO_URL + file_prefix + name
    federated = [key for key in FEDERATED_KEYS if key in main_image]
    return {'id': identity, **converted, **{key: [] for key in federated}}
