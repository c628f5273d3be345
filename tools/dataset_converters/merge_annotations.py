r"""Add images of another data set to an annotation file.

    python tools/dataset_converters/merge_annotations.py MAIN.json EXTRA.json --map map.csv \
        --file-prefix ../openimages/ --out MERGED.json

Both are COCO or LVIS annotations; the CSV file has the columns extra and
main, with the names of classes. Images of EXTRA.json with a box of a mapped
class are taken, with their boxes of mapped classes, and masks if they have
any; LoadOptionalMasks and OptionalMaskFCNMaskHead train with objects that
have none. Categories stay those of MAIN.json, image counts in them too.

Where MAIN.json says which classes an image was checked for, an added image
was checked for no class but those it has boxes of: its neg_category_ids and
not_exhaustive_category_ids are empty.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.result_files import check_outputs
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    FEDERATED_KEYS,
    image_file_name,
    parse_annotations,
)
from mmdet_longtail.utils.class_names import read_class_map
from mmdet_longtail.utils.fileio import read_json, write_atomic

COCO_URL = 'http://images.cocodataset.org/'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('main', metavar='MAIN.json')
    parser.add_argument('extra', metavar='EXTRA.json')
    parser.add_argument(
        '--map',
        required=True,
        metavar='MAP.csv',
        help='columns extra and main: which class of EXTRA.json is which '
        'class of MAIN.json',
    )
    parser.add_argument(
        '--file-prefix',
        default='',
        metavar='TEXT',
        help='put before the file names of EXTRA.json, to be found from the '
        'folder of the images of MAIN.json, as ../openimages/',
    )
    parser.add_argument('--out', required=True, metavar='MERGED.json')
    return parser.parse_args()


def next_id(entries: Iterable[dict]) -> int:
    """Give the first whole number above all ids."""
    ids = [e['id'] for e in entries if isinstance(e.get('id'), int)]
    return max(ids, default=0) + 1


def added_annotations(
    extra: dict, category_of: dict, first_id: int
) -> list[dict]:
    """Give the boxes of mapped classes, with categories of the main file.

    Args:
        extra (dict): Content of the extra file.
        category_of (dict): Main category of each mapped extra category.
        first_id (int): Id of the first; the others follow.
    """
    kept = [a for a in extra['annotations'] if a['category_id'] in category_of]
    return [
        {
            'area': annotation['bbox'][2] * annotation['bbox'][3],
            **annotation,
            'id': identity,
            'category_id': category_of[annotation['category_id']],
        }
        for identity, annotation in enumerate(kept, first_id)
    ]


def added_image(
    image: dict, identity: int, main_image: dict, args: argparse.Namespace
) -> dict:
    """Describe an image of the extra file as the main file does.

    Raises:
        LongTailError: If it does not say its size or its file.
    """
    for key in ('width', 'height'):
        if not isinstance(image.get(key), int | float):
            raise LongTailError(
                f'{args.extra}: image {image["id"]!r} has no {key!r} that is '
                'a number of pixels'
            )
    if not image_file_name(image):
        raise LongTailError(
            f"{args.extra}: image {image['id']!r} has no 'file_name'"
        )
    name = args.file_prefix + image_file_name(image)
    added: dict[str, Any] = {
        'id': identity,
        'width': image['width'],
        'height': image['height'],
        'file_name': name,
    }
    if 'file_name' not in main_image:  # as in LVIS v1
        added['coco_url'] = COCO_URL + added.pop('file_name')
    return added | {key: [] for key in FEDERATED_KEYS if key in main_image}


def merge(main: dict, extra: dict, args: argparse.Namespace) -> dict:
    """Add the extra images and boxes to the main ones.

    Raises:
        LongTailError: If the map does not fit, or no image or an image of
            the main file would be added.
    """
    main_of = read_class_map(
        args.map,
        [category['name'] for category in extra['categories']],
        [category['name'] for category in main['categories']],
        args.extra,
        args.main,
    )
    main_id = {c['name']: c['id'] for c in main['categories']}
    category_of = {
        category['id']: main_id[main_of[category['name']]]
        for category in extra['categories']
        if category['name'] in main_of
    }
    annotations = added_annotations(
        extra, category_of, next_id(main['annotations'])
    )
    wanted = {annotation['image_id'] for annotation in annotations}
    if not wanted:
        raise LongTailError(
            f'{args.extra}: no box is of a class that {args.map} maps'
        )
    first = next_id(main['images'])
    old_images = [i for i in extra['images'] if i['id'] in wanted]
    images = [
        added_image(image, identity, main['images'][0], args)
        for identity, image in enumerate(old_images, first)
    ]
    names = {image_file_name(image) for image in main['images']}
    for image in images:
        if image_file_name(image) in names:
            raise LongTailError(
                f'{args.extra}: {image_file_name(image)!r} is an image of '
                f'{args.main}, too; boxes of the same images can be '
                'ignore_file of a dataset'
            )
    new_id = {old['id']: new['id'] for old, new in zip(old_images, images)}
    for annotation in annotations:
        annotation['image_id'] = new_id[annotation['image_id']]
    left_out = len(extra['annotations']) - len(annotations)
    print(
        f'{args.extra}: {len(images):,} images and {len(annotations):,} boxes '
        f'of {len(set(category_of.values())):,} classes added, {left_out:,} '
        'boxes of other classes left out'
    )
    return main | {
        'images': main['images'] + images,
        'annotations': main['annotations'] + annotations,
    }


def main() -> None:
    """Merge and write."""
    args = parse_args()
    check_outputs((args.out,), (args.main, args.extra, args.map))
    main, extra = read_json(args.main), read_json(args.extra)
    parse_annotations(main, args.main)
    parse_annotations(extra, args.extra)
    merged = merge(main, extra, args)
    write_atomic(args.out, json.dumps(merged))
    print(
        f'{args.out}: {len(merged["images"]):,} images, '
        f'{len(merged["annotations"]):,} boxes'
    )


if __name__ == '__main__':
    run(main)
