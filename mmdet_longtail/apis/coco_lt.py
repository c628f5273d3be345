"""Creation of COCO-LT and similar datasets from COCO's annotations."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.annotations import (
    parse_annotations,
    select_annotations,
)
from mmdet_longtail.structures.class_statistics import (
    bin_index_of,
    bin_names,
    check_bin_edges,
)
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.utils.tables import make_table

WAY_OUT = 'a selection belongs to the file that it was made from'
# Per category id: the images whose annotations of it are kept, and the
# expected number of these annotations.
Selection = tuple[dict[Any, set], dict[Any, int]]


def make_coco_lt(
    annotation_file: str | Path,
    out: str | Path,
    totals_file: str | Path,
    selection_file: str | Path | None = None,
    seed: int = 0,
    allow_differences: bool = False,
) -> None:
    """Write a long-tailed part of COCO's training annotations.

    Prints expected and obtained instances per bin.

    Args:
        annotation_file (str | Path): COCO annotations.
        out (str | Path): File to write.
        totals_file (str | Path): File for `read_totals`.
        selection_file (str | Path, optional): JSON file with ``categories``,
            objects with ``category_id``, ``instance_count`` and
            ``image_ids``. Defaults to None: images are drawn.
        seed (int): Random seed of the drawn images.
        allow_differences (bool): Whether the selected images may have other
            instance counts than the selection expects.

    Raises:
        LongTailError: If a file cannot be read or written, the files do not
            belong together, or counts differ that may not.
    """
    source = str(annotation_file)
    totals = read_totals(totals_file)
    content = read_json(source)
    parse_annotations(content, source)
    if selection_file is not None:
        name = 'COCO-LT'
        images, expected = _read_selection(selection_file, content, source)
    else:
        name = f'COCO-LT-like, drawn with seed {seed}'
        images, expected = _draw_selection(content, totals, seed, source)
        allowed, published = sum(expected.values()), totals['num_instances']
        if allowed < sum(published):
            print(
                f'{source} allows {allowed:,} of the {sum(published):,} '
                f'instances of {totals_file}'
            )
    annotations = content['annotations']
    is_kept = (a['image_id'] in images[a['category_id']] for a in annotations)
    part = select_annotations(content, is_kept, source)
    info = content.get('info') or {}
    origin = info.get('description') or source
    part['info'] = info | {'description': f'{name}, from {origin}'}
    print(f'{name}: {len(part["images"]):,} images')
    obtained = Counter(a['category_id'] for a in part['annotations'])
    counts = {
        c['name']: (expected[c['id']], obtained[c['id']])
        for c in content['categories']
    }
    _print_totals(np.array([*counts.values()]), totals['bin_edges'])
    differing = [
        f'{name} {found:,} for {wanted:,}'
        for name, (wanted, found) in counts.items()
        if found != wanted
    ]
    if differing:
        print(f'counts that differ: {", ".join(differing)}')
    check(
        not differing or selection_file is None or allow_differences,
        f'{source}: {len(differing)} of {len(counts)} classes have other '
        f'instance counts than {selection_file} expects, so {WAY_OUT}; '
        'to write the file anyway, give --allow-differences',
    )
    write_atomic(out, json.dumps(part))
    print(f'{out} is written')


def _print_totals(counts: np.ndarray, bin_edges: list[int]) -> None:
    """Print expected and obtained instances per class, (C, 2), per bin."""
    bin_index = bin_index_of(counts[:, 0], bin_edges)
    bins = [counts[bin_index == g] for g in range(len(bin_edges) + 1)]
    rows = []
    for name, members in zip([*bin_names(bin_edges), 'all'], [*bins, counts]):
        wanted, found = members.sum(axis=0)
        numbers = [f'{n:,}' for n in (len(members), wanted, found)]
        rows.append([name, *numbers, f'{found - wanted:+,}'])
    headings = ['instances', 'classes', 'expected', 'obtained', 'difference']
    table_console().print(make_table(headings, rows))


def read_totals(path: str | Path) -> dict[str, list[int]]:
    """Read ``bin_edges``, and ``num_classes`` and ``num_instances`` per bin.

    Raises:
        LongTailError: If the file has no such lists.
    """
    totals = read_json(path)
    with suppress(KeyError, TypeError, ValueError):
        check_bin_edges(totals['bin_edges'])
        numbers = np.array([totals['num_classes'], totals['num_instances']])
        is_count = numbers.dtype == int and numbers.min() >= 0
        if is_count and numbers.shape == (2, len(totals['bin_edges']) + 1):
            return totals
    raise LongTailError(
        f'{path}: expected bin_edges, and num_classes and num_instances with '
        'one number per bin, as in configs/coco_lt/totals.json'
    )


def _read_selection(path: str | Path, content: dict, source: str) -> Selection:
    """Read the images per category, of the annotations of a source."""
    selection = read_json(path)
    try:
        entries = selection['categories']
        images = {e['category_id']: {*e['image_ids']} for e in entries}
        counts = {e['category_id']: int(e['instance_count']) for e in entries}
    except (KeyError, TypeError, ValueError):
        raise LongTailError(
            f'{path}: not a selection; expected categories, each with '
            'category_id, instance_count and image_ids'
        ) from None
    check(
        len(images) == len(entries),
        f'{path}: lists a category twice; expected one entry per category, '
        'with all of its images',
    )
    category_ids = {category['id'] for category in content['categories']}
    for category in sorted(category_ids ^ images.keys(), key=str):
        raise LongTailError(
            f'category {category!r} is in only one of {source} and {path}; '
            f'{WAY_OUT}'
        )
    image_ids = {image['id'] for image in content['images']}
    for image in sorted(set().union(*images.values()) - image_ids, key=str):
        raise LongTailError(
            f'{source}: has no image {image!r}, which {path} lists; {WAY_OUT}'
        )
    return images, counts


def _draw_selection(
    content: dict[str, Any],
    totals: Mapping[str, list[int]],
    seed: int,
    source: str,
) -> Selection:
    """Draw images such that classes and instances per bin equal the totals.

    The rarest classes go to the bin of the fewest instances. Instances are
    missing where whole images do not allow the exact number.
    """
    # Instances per category and image.
    counts: dict[Any, Counter] = defaultdict(Counter)
    for annotation in content['annotations']:
        counts[annotation['category_id']][annotation['image_id']] += 1
    ids = [category['id'] for category in content['categories']]
    available = np.array([counts[i].total() for i in ids])
    check(
        sum(totals['num_classes']) == len(ids),
        f'{source}: has {len(ids)} categories, but the totals are of '
        f'{sum(totals["num_classes"])}; give --totals for this file',
    )
    rarest_first = np.argsort(available, kind='stable')
    members = np.split(rarest_first, np.cumsum(totals['num_classes'])[:-1])
    edges = [1, *totals['bin_edges'], available.max() + 1]
    wanted = np.zeros(len(ids), dtype=int)
    for g, total in enumerate(totals['num_instances']):
        wanted[members[g]] = share_out(
            available[members[g]], total, edges[g], edges[g + 1] - 1
        )
    expected = dict(zip(ids, wanted.tolist()))
    rng = np.random.default_rng(seed)
    images: dict[Any, set] = {i: set() for i in ids}
    for i, missing in expected.items():
        candidates = [*counts[i].items()]
        for index in rng.permutation(len(candidates)):
            image, count = candidates[index]
            if count <= missing:
                images[i].add(image)
                missing -= count
    return images, expected


def share_out(
    available: np.ndarray, total: int, low: int, high: int
) -> np.ndarray:
    """Divide the instances of a bin among its K classes.

    Each class gets the same fraction of its available instances (K,), from
    ``low`` to ``high``, rounded by largest remainders. The result (K,) int64
    has the sum ``total`` if these limits allow it.
    """
    most = np.minimum(available, high)
    least = np.minimum(low, most)
    total = np.clip(total, least.sum(), most.sum())

    def shares(fraction: float) -> np.ndarray:
        return np.clip(fraction * available, least, most)

    exact = shares(brentq(lambda f: shares(f).sum() - total, 0, 1))
    whole = np.floor(exact).astype(int)
    largest_remainders = np.argsort(whole - exact)
    whole[largest_remainders[: total - whole.sum()]] += 1
    return whole
