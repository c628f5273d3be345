r"""Make COCO-LT from COCO's training annotations.

    python tools/dataset_converters/make_coco_lt.py instances_train2017.json SELECTION.json OUT
    python tools/dataset_converters/make_coco_lt.py instances_train2017.json OUT --seed 0

SELECTION.json lists for each category the images whose annotations of that
category are kept, and how many these are:

    {"categories": [
        {"category_id": 1, "instance_count": 2, "image_ids": [36, 49]}]}

OUT gets these annotations and the images that have one. What was expected and
what was obtained are printed; where they differ, the exit status is 1 unless
--allow-differences is given, since another file than COCO's was read.

Without SELECTION.json images are drawn: a COCO-LT-like set, which has as many
classes and instances in each bin as the published one, as far as whole
images allow, but not its images. COCO's rarest classes are its rarest too.
"""

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.result_files import check_outputs
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    parse_annotations,
    select_annotations,
)
from mmdet_longtail.structures.class_statistics import bin_index_of, bin_names
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import read_json, write_atomic

TOTALS = Path(__file__).parents[2] / 'configs' / 'coco_lt' / 'totals.json'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('annotations', metavar='COCO.json')
    parser.add_argument(
        'selection',
        nargs='?',
        metavar='SELECTION.json',
        help='the images of each category (default: draw them)',
    )
    parser.add_argument('out', metavar='OUT')
    parser.add_argument(
        '--totals',
        default=TOTALS,
        metavar='FILE',
        help='bins, and the classes and instances in each; without a '
        'selection it says what is drawn (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the drawn images (default: 0)'
    )
    parser.add_argument(
        '--allow-differences',
        action='store_true',
        help='write OUT with other numbers than expected, too',
    )
    return parser.parse_args()


# -- what is expected -------------------------------------------------------


def read_totals(path: str | Path) -> dict[str, list[int]]:
    """Read the bins and what is in each.

    Raises:
        LongTailError: If the file says something else.
    """
    totals = read_json(path)
    try:
        bin_index_of(np.zeros(0), totals['bin_edges'])
        num_bins = len(totals['bin_edges']) + 1
        counts = totals['num_classes'], totals['num_instances']
        is_valid = all(
            len(count) == num_bins
            and all(type(number) is int and number >= 0 for number in count)
            for count in counts
        )
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise LongTailError(
            f'{path}: expected bin_edges, and num_classes and num_instances '
            f'with a number for each bin, as in {TOTALS}'
        )
    return totals


def read_selection(path: str) -> tuple[dict[Any, set], dict[Any, int]]:
    """Read the images of each category, and how many instances are expected.

    Raises:
        LongTailError: If the file says something else.
    """
    content = read_json(path)
    try:
        entries = content['categories']
        images = {e['category_id']: {*e['image_ids']} for e in entries}
        is_twice = len(images) < len(entries)
        expected = {
            e['category_id']: int(e['instance_count']) for e in entries
        }
    except (KeyError, TypeError, ValueError):
        raise LongTailError(
            f'{path}: not a selection; expected categories, each with '
            'category_id, instance_count and image_ids'
        ) from None
    if is_twice:
        raise LongTailError(
            f'{path}: lists a category twice; expected one entry for each, '
            'with all of its images'
        )
    return images, expected


def check_selection(
    images: dict[Any, set],
    content: dict[str, Any],
    args: argparse.Namespace,
) -> None:
    """Check that a selection is of this annotation file.

    Raises:
        LongTailError: Naming the first category or image that is not.
    """
    way_out = 'a selection goes with the file that it was made from'
    categories = [category['id'] for category in content['categories']]
    foreign = sorted(set(categories) ^ images.keys(), key=str)
    if foreign:
        owner, other = args.annotations, args.selection
        if foreign[0] in images:
            owner, other = other, owner
        raise LongTailError(
            f'{other}: has no category {foreign[0]!r}, but {owner} has; '
            f'{way_out}'
        )
    known = {image['id'] for image in content['images']}
    for category, selected in images.items():
        lacking = selected - known
        if lacking:
            image = min(lacking, key=str)
            raise LongTailError(
                f'{args.annotations}: has no image {image!r}, which '
                f'{args.selection} lists for category {category!r}; {way_out}'
            )


# -- a set that is like it --------------------------------------------------


def share_out(
    available: np.ndarray, total: int, low: int, high: int
) -> np.ndarray:
    """Divide the instances of a bin among its classes.

    Each class gets the same share of what there is, within the bin.

    Args:
        available (np.ndarray): Instances of the classes of the bin (K,).
        total (int): Instances to divide.
        low (int): The least that a class of the bin has.
        high (int): The most.

    Returns:
        np.ndarray: Instances of each class (K,), whose sum is the total if
        the limits allow it.
    """
    most = np.minimum(available, high)
    least = np.minimum(low, most)
    # A class without instances has no share of its own: 0 of 1.
    divisor = np.maximum(np.tile(available, 2), 1)
    shares = np.sort(np.concatenate([least, most]) / divisor)
    amounts = [
        np.clip(np.floor(s * available + 1e-9), least, most).sum()
        for s in shares
    ]
    # Between two shares at which a class meets a limit, amounts grow evenly.
    share = np.interp(total, amounts, shares)
    wanted = np.clip(np.floor(share * available), least, most).astype(int)
    missing = total - int(wanted.sum())
    for c in np.argsort(-(share * available % 1)):
        step = int(np.sign(missing))
        if step and least[c] <= wanted[c] + step <= most[c]:
            wanted[c] += step
            missing -= step
    return wanted


def wanted_instances(
    available: Sequence[int], totals: dict[str, list[int]], source: str
) -> np.ndarray:
    """Say how many instances of each class are drawn.

    Args:
        available (Sequence[int]): Instances of each class (C,).
        totals (dict): Bins, and the classes and instances in each.
        source (str): The annotation file, for the message.

    Raises:
        LongTailError: If the file has another number of classes.
    """
    counts = np.array(available)
    if sum(totals['num_classes']) != len(counts):
        raise LongTailError(
            f'{source}: has {len(counts)} categories, but the totals are of '
            f'{sum(totals["num_classes"])}; give --totals for this file'
        )
    rarest_first = np.argsort(counts, kind='stable')
    ends = np.cumsum(totals['num_classes'])
    edges = [1, *totals['bin_edges'], int(counts.max()) + 1]
    wanted = np.zeros(len(counts), dtype=int)
    for members, total, low, high in zip(
        np.split(rarest_first, ends[:-1]),
        totals['num_instances'],
        edges[:-1],
        edges[1:],
        strict=True,
    ):
        if len(members):
            wanted[members] = share_out(counts[members], total, low, high - 1)
    return wanted


def draw_images(
    counts_of_images: dict[Any, int], wanted: int, rng: np.random.Generator
) -> set:
    """Draw images with so many instances of a class together.

    Args:
        counts_of_images (dict): Instances of the class in each image.
        wanted (int): How many; not more are drawn.
        rng (np.random.Generator): Gives the order.
    """
    images = list(counts_of_images)
    drawn = set()
    for index in rng.permutation(len(images)):
        count = counts_of_images[images[index]]
        if count <= wanted:
            drawn.add(images[index])
            wanted -= count
    return drawn


def draw_selection(
    content: dict[str, Any],
    totals: dict[str, list[int]],
    args: argparse.Namespace,
) -> tuple[dict[Any, set], dict[Any, int]]:
    """Draw the images of each category; see `read_selection`."""
    counts: dict[Any, Counter] = defaultdict(Counter)
    for annotation in content['annotations']:
        counts[annotation['category_id']][annotation['image_id']] += 1
    categories = [category['id'] for category in content['categories']]
    wanted = wanted_instances(
        [counts[category].total() for category in categories],
        totals,
        args.annotations,
    )
    rng = np.random.default_rng(args.seed)
    images, expected = {}, {}
    for category, number in zip(categories, wanted.tolist(), strict=True):
        images[category] = draw_images(counts[category], number, rng)
        expected[category] = number
    return images, expected


# -- what is obtained -------------------------------------------------------


def print_totals(
    expected: np.ndarray, obtained: np.ndarray, bin_edges: Sequence[int]
) -> None:
    """Print the classes and instances of each bin of expected instances."""
    table = Table(
        'instances', 'classes', 'expected', 'obtained', 'difference', box=None
    )
    bin_index = bin_index_of(expected, bin_edges)
    parts = [
        *(
            (name, bin_index == g)
            for g, name in enumerate(bin_names(bin_edges))
        ),
        ('all', np.ones(len(expected), dtype=bool)),
    ]
    for name, members in parts:
        wanted, found = expected[members].sum(), obtained[members].sum()
        numbers = (members.sum(), wanted, found)
        cells = [f'{number:,}' for number in numbers]
        table.add_row(name, *cells, f'{found - wanted:+,}')
    table_console().print(table)


def main() -> int:
    """Write the part of COCO, and compare it with what was expected."""
    args = parse_args()
    check_outputs([args.out], [args.annotations, args.selection])
    totals = read_totals(args.totals)
    content = read_json(args.annotations)
    parse_annotations(content, args.annotations)  # says what is wrong
    if args.selection is not None:
        name = 'COCO-LT'
        images, expected = read_selection(args.selection)
        check_selection(images, content, args)
    else:
        name = f'COCO-LT-like, drawn with seed {args.seed}'
        images, expected = draw_selection(content, totals, args)
        allowed = sum(expected.values())
        published = sum(totals['num_instances'])
        if allowed < published:
            print(
                f'{args.annotations} allows {allowed:,} of the '
                f'{published:,} instances of {args.totals}'
            )
    part = select_annotations(
        content,
        (
            a['image_id'] in images[a['category_id']]
            for a in content['annotations']
        ),
        args.annotations,
    )
    description = (content.get('info') or {}).get('description', '')
    part['info'] = dict(
        content.get('info') or {},
        description=f'{name}, from {description or args.annotations}',
    )
    counts = Counter(a['category_id'] for a in part['annotations'])
    categories = [category['id'] for category in content['categories']]
    wanted = np.array([expected[category] for category in categories])
    found = np.array([counts[category] for category in categories])
    print(f'{name}: {len(part["images"]):,} images')
    print_totals(wanted, found, totals['bin_edges'])
    differing = [
        f'{category["name"]} {obtained:,} for {number:,}'
        for category, number, obtained in zip(
            content['categories'], wanted, found, strict=True
        )
        if obtained != number
    ]
    if differing:
        print(f'other numbers than expected: {", ".join(differing)}')
    is_refused = (
        bool(differing)
        and args.selection is not None
        and not args.allow_differences
    )
    if is_refused:
        raise LongTailError(
            f'{args.annotations}: {len(differing)} of {len(categories)} '
            f'classes have other numbers than {args.selection} expects, so it '
            'is another file than that was made from; to write it all the '
            'same, give --allow-differences'
        )
    write_atomic(args.out, json.dumps(part))
    print(f'{args.out} is written')
    return 0


if __name__ == '__main__':
    run(main)
