"""Faults of COCO and LVIS annotation files that are known before a training.

Every field that mmdet reads is checked, without mmdet.
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdet_longtail.errors import check
from mmdet_longtail.structures.annotation_fields import (
    Report,
    box_array,
    check_field,
    find_structure_faults,
    have_ids,
    is_number,
    numbers,
    true_rows,
)
from mmdet_longtail.structures.annotations import (
    DROP_REASONS,
    IGNORED,
    Annotations,
    image_file_name,
    image_size,
    parse_annotations,
)
from mmdet_longtail.structures.findings import Finding, Severity

# mmdet's configs filter smaller images: filter_cfg.min_size.
MIN_SIZE = 32
# A few boxes on the border reach beyond by rounding.
MAX_OUTSIDE_SHARE = 0.2
MIN_TURNED = 3
# COCO's evaluator ignores larger objects.
MAX_SIDE = 100_000
PIXELS = 'a number of pixels'


# -- boxes that do not train -----------------------------------------------


def describe_dropped(parts: Sequence[Annotations]) -> str:
    """Return why boxes of a training set do not train, in a clause."""
    number = sum(int(part.dropped.sum()) for part in parts)
    if not number:
        return 'has no annotations, so there is no box to train'
    total = number + sum(len(part.class_index) for part in parts)
    by_reason = np.sum([part.dropped.sum(0) for part in parts], axis=0)
    reasons = ', '.join(
        f'{count:,} {reason}'
        for count, reason in zip(by_reason, DROP_REASONS)
        if count
    )
    if number == total:
        return f'none of its {total:,} boxes trains ({reasons})'
    return f'boxes that do not train: {number:,} of {total:,} ({reasons})'


def find_dropped_boxes(annotations: Annotations) -> list[Finding]:
    """Report the boxes of a training set that do not train.

    Args:
        annotations (Annotations): Of an annotation file (`parse_annotations`)
            or of one part of a dataset (`read_annotations`).

    Returns:
        list[Finding]: An error if no box trains. Else a warning with the
        number of boxes and their reasons (a note if they are crowds or
        ignored), and one with the classes that lose all their boxes.
    """
    source = annotations.source
    dropped = annotations.dropped
    number = int(dropped.sum())
    if not len(annotations.class_index):
        message = f'{source}: {describe_dropped([annotations])}'
        return [Finding(Severity.ERROR, message)]
    findings = []
    if number:
        # A crowd is meant to be left out, unless most boxes are crowds.
        is_meant = (
            number == dropped[:, IGNORED].sum() <= len(annotations.class_index)
        )
        findings.append(
            Finding(
                Severity.NOTE if is_meant else Severity.WARNING,
                f'{source}: {describe_dropped([annotations])}; the counts '
                'leave them out'
                + ('' if is_meant else ', correct or remove them'),
            )
        )
    counts = np.bincount(annotations.class_index, minlength=len(dropped))
    lost = np.flatnonzero((counts == 0) & (dropped.sum(1) > 0))
    if len(lost):
        names = [repr(annotations.class_names[label]) for label in lost[:3]]
        findings.append(
            Finding(
                Severity.WARNING,
                f'{source}: classes that have boxes, none of which trains: '
                f'{len(lost)} of {len(dropped)}, such as {", ".join(names)}',
            )
        )
    if annotations.num_degenerate:
        findings.append(
            Finding(
                Severity.WARNING,
                f'{source}: {annotations.num_degenerate:,} boxes have zero '
                'or negative size; they are in the counts, though no '
                'detector can learn from them',
            )
        )
    return findings


# -- masks -----------------------------------------------------------------


def mask_fault(segmentation: Any, size: tuple[Any, Any]) -> tuple[str, str]:
    """Return the kind of fault of a segmentation, and its description.

    Both are empty for polygons or a run-length encoding that can be drawn.
    The kinds are 'missing' (no polygon), 'short' (some polygons have fewer
    than three points), 'empty' (all have) and 'broken'.

    Args:
        segmentation (Any): None where the key is missing.
        size (tuple): Stated height and width of the image.
    """
    if not segmentation:
        return 'missing', f'is {segmentation!r}'
    if isinstance(segmentation, list):
        return _polygon_fault(segmentation)
    if not isinstance(segmentation, dict):
        return 'broken', f'is a {type(segmentation).__name__}'
    return _encoding_fault(segmentation, size)


def drawn_polygons(polygons: list) -> list:
    """Select the polygons that mmdet draws: three points or more."""
    return [p for p in polygons if _is_drawn(p)]


def _is_drawn(polygon: list) -> bool:
    return len(polygon) % 2 == 0 and len(polygon) >= 6


def _polygon_fault(polygons: list) -> tuple[str, str]:
    num_drawn = 0
    for polygon in polygons:
        if not isinstance(polygon, list):
            kinds: dict[type, str] = {dict: 'encodings', str: 'text'}
            found = kinds.get(type(polygon), 'numbers')
            return 'broken', f'is a list of {found}'
        try:
            total = sum(polygon)  # much faster than a look at each number
        except TypeError:
            text = f'{polygon[:2]}'
            return 'broken', f'has a polygon that starts with {text:.40}'
        if not abs(total) < math.inf:
            return 'broken', 'has a polygon with NaN or infinity'
        # The time and memory to draw a polygon grow with its length.
        if polygon and max(max(polygon), -min(polygon)) > MAX_SIDE:
            return 'broken', f'has a polygon beyond {MAX_SIDE:,} pixels'
        num_drawn += _is_drawn(polygon)
    if num_drawn == len(polygons):
        return '', ''
    found = 'has polygons without three points'
    return ('short' if num_drawn else 'empty'), found


def _encoding_fault(mask: dict, size: tuple[Any, Any]) -> tuple[str, str]:
    found = mask.get('size')
    counts = mask.get('counts')
    if not isinstance(found, list) or not isinstance(counts, list | str):
        return 'broken', "has no 'size' and 'counts' of an encoding"
    if tuple(found) != size:
        return 'broken', f'is of the size {found}, but the image of {[*size]}'
    runs = _decode(counts) if isinstance(counts, str) else counts
    # pycocotools writes beyond its memory if the sum is another one.
    if (
        any(type(run) is not int or run < 0 for run in runs)
        or sum(runs) != size[0] * size[1]
    ):
        return 'broken', "has 'counts' that do not encode a mask of its size"
    return '', ''


def _decode(counts: str) -> list[int]:
    """Return the runs of a compressed encoding; [-1] if it is invalid.

    A run is a signed number in groups of five bits, the lowest first, and the
    difference to the run two before it.
    """
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode():
        value |= (code - 48 & 31) << shift
        shift += 5
        if not 48 <= code < 112:
            return [-1]
        if code - 48 & 32:
            continue
        if code - 48 & 16:
            value -= 1 << shift
        if len(runs) > 2:
            value += runs[-2]
        runs.append(value)
        value = shift = 0
    return [-1] if shift else runs


# Severity and way out of each kind.
MASK_FAULTS = {
    'broken': (
        Severity.ERROR,
        'expected polygons [[x, y, ...], ...] or a run-length encoding of '
        'the size of the image',
    ),
    'missing': (
        Severity.ERROR,
        'LoadOptionalMasks loads an object without a mask, LoadAnnotations '
        'fails',
    ),
    'empty': (Severity.WARNING, 'mmdet ignores such an object, its box too'),
    'short': (Severity.WARNING, 'mmdet leaves these polygons out'),
}


# -- annotation files ------------------------------------------------------


def find_annotation_faults(
    content: Any,
    source: str,
    *,
    needs_masks: bool = False,
    optional_masks: bool = False,
    needs_boxes: bool = True,
    min_size: float | None = None,
) -> list[Finding]:
    """Report the faults of an annotation file, errors first.

    Each kind of fault is one finding, with its number and first example.

    Args:
        content (Any): The JSON content of a COCO or LVIS file.
        source (str): Its path, for messages.
        needs_masks (bool): Whether masks train, so that segmentations are
            checked.
        optional_masks (bool): Whether ``LoadOptionalMasks`` loads the masks:
            an object without one is no fault.
        needs_boxes (bool): Whether the set is for training: it needs
            annotations, and boxes that do not train are reported.
        min_size (float, optional): ``filter_cfg.min_size`` of a training set.
            Defaults to None, unknown.
    """
    if isinstance(content, dict) and not needs_boxes:
        content = {'annotations': []} | content
    report, sound = find_structure_faults(content, source)
    is_complete = not report.findings
    if 'categories' in sound:
        _check_one_type(report, 'categories', content['categories'])
        names = [category['name'] for category in content['categories']]
        _check_once(report, names, 'categories have the name', 'rename one')
    if 'images' in sound:
        _check_images(report, content['images'], min_size)
    if 'annotations' in sound:
        _check_fields(report, content['annotations'])
        if needs_boxes and not content['annotations']:
            message = 'has no annotations, so there is no box to train'
            report.add(Severity.ERROR, message)
    if is_complete and content['annotations']:
        if needs_boxes:
            parsed = parse_annotations(content, source)
            report.findings += find_dropped_boxes(parsed)
        _check_extents(report, content)
        _check_unused(report, content)
        if needs_masks:
            _check_masks(report, content, optional_masks)
    return sorted(report.findings, key=lambda finding: -finding.severity)


def check_annotations(content: Any, source: str, **options: Any) -> None:
    """Raise the first error of `find_annotation_faults`, if there is one.

    Raises:
        LongTailError: With its message.
    """
    for finding in find_annotation_faults(content, source, **options):
        check(finding.severity < Severity.ERROR, finding.message)


def check_evaluation(content: dict, source: str, needs_masks: bool) -> None:
    """Validate what the evaluators read in a sound file.

    On other values they disagree, or leave objects out.

    Raises:
        LongTailError: Naming the first annotation with another value.
    """
    report = Report(source)
    annotations = content['annotations']
    _check_one_type(report, 'images', content['images'])
    _check_one_type(report, 'categories', content['categories'])
    area, limit = numbers(annotations, 'area'), MAX_SIDE**2
    if not ((area >= 0) & (area <= limit)).all():
        check_field(
            report,
            'annotations',
            annotations,
            'area',
            lambda value: is_number(value) and 0 <= value <= limit,
            f'{PIXELS} from 0 to {limit:g}',
        )
    boxes = box_array(a['bbox'] for a in annotations)
    if not ((abs(boxes) <= limit).all() and (boxes[:, 2:] >= 0).all()):
        check_field(
            report,
            'annotations',
            annotations,
            'bbox',
            lambda box: max(map(abs, box)) <= limit and min(box[2:]) >= 0,
            '[x, y, width, height] in pixels, width and height not negative',
        )
    _check_flags(report, annotations, 'iscrowd', (0, 1))
    _check_flags(report, annotations, 'ignore', (0, 1, None))
    if needs_masks:
        for key in ('width', 'height'):
            check_field(
                report,
                'images',
                content['images'],
                key,
                lambda value: type(value) is int and value > 0,
                'a whole number of pixels to draw masks',
            )
        if not report.findings:
            _check_masks(report, content, needs_all=True)
    report.raise_first()


def _check_one_type(report: Report, section: str, entries: list) -> None:
    """Check that ids are numbers only or strings only: evaluators sort."""
    first = entries[0]['id']
    report.add_rows(
        Severity.ERROR,
        section,
        true_rows(
            isinstance(e['id'], str) != isinstance(first, str) for e in entries
        ),
        lambda i: (
            f"has the 'id' {entries[i]['id']!r}, but {section}[0] has "
            f'{first!r}'
        ),
        'use numbers only or strings only',
    )


def _check_once(
    report: Report, names: list[str], fact: str, way_out: str
) -> None:
    ((name, times),) = Counter(names).most_common(1)
    if times > 1:
        report.add(Severity.WARNING, f'{times} {fact} {name!r}; {way_out}')


def _check_images(
    report: Report, images: list, min_size: float | None
) -> None:
    _check_one_type(report, 'images', images)
    has_size = [
        check_field(report, 'images', images, key, is_number, PIXELS)
        for key in ('width', 'height')
    ]
    if all(has_size):
        size = np.array([[i['width'], i['height']] for i in images], float)
        _check_size(report, size.min(1), min_size)
    names = [image_file_name(image) for image in images]
    if report.add_rows(
        Severity.ERROR,
        'images',
        true_rows(not (isinstance(name, str) and name) for name in names),
        "has no 'file_name' that is a string",
        'name the file of each image',
    ):
        return
    way_out = 'list each image once, with all its boxes'
    _check_once(report, names, 'images have the file name', way_out)


def _check_size(
    report: Report, smaller: np.ndarray, min_size: float | None
) -> None:
    """Check the smaller of width and height per image."""
    report.add_rows(
        Severity.WARNING,
        'images',
        np.flatnonzero(smaller <= 0),
        lambda i: f'has a width or height of {smaller[i]:g}',
        'write its size in pixels, or none of its boxes trains',
    )
    limit = MIN_SIZE if min_size is None else min_size
    if (smaller < limit).all():
        report.add(
            Severity.WARNING if min_size is None else Severity.ERROR,
            f'all {len(smaller):,} images are smaller than {limit:g} pixels: '
            f'a filter_cfg with min_size={limit:g} drops them all; set a '
            'smaller min_size',
        )


def _check_fields(report: Report, annotations: list) -> None:
    """Check the fields that mmdet reads beside the box."""
    have_ids(report, 'annotations', annotations, (int, str, float))
    if not np.isfinite(numbers(annotations, 'area')).all():
        check_field(
            report, 'annotations', annotations, 'area', is_number, PIXELS
        )
    _check_flags(report, annotations, 'iscrowd', (0, 1))
    _check_flags(report, annotations, 'ignore', (0, 1, None))


def _check_flags(
    report: Report, annotations: list, key: str, allowed: tuple
) -> None:
    """Check a mark that an annotation may have."""
    values = [a.get(key, 0) for a in annotations]
    try:
        if {*values} <= {*allowed}:
            return
    except TypeError:  # a list
        pass
    report.add_rows(
        Severity.ERROR,
        'annotations',
        true_rows(value not in allowed for value in values),
        lambda i: f'has {key} {values[i]!r:.60}',
        'expected 0 or 1 (mmdet ignores a box of which it is any text)',
    )


def _check_unused(report: Report, content: dict) -> None:
    """Report images without annotation."""
    used = {annotation['image_id'] for annotation in content['annotations']}
    report.add_rows(
        Severity.NOTE,
        'images',
        true_rows(image['id'] not in used for image in content['images']),
        'has no annotation',
        'filter_cfg.filter_empty_gt drops such images in training',
    )


def _check_extents(report: Report, content: dict) -> None:
    """Compare boxes with the stated sizes of their images."""
    images, annotations = content['images'], content['annotations']
    row_of = {image['id']: i for i, image in enumerate(images)}
    image = np.array([row_of[a['image_id']] for a in annotations], np.int64)
    size = np.stack([numbers(images, k) for k in ('width', 'height')], 1)
    boxes = box_array(a['bbox'] for a in annotations)
    is_used = (boxes[:, 2:] >= 1).all(1) & (size[image] > 0).all(1)
    boxes, image, rows = (
        boxes[is_used],
        image[is_used],
        np.flatnonzero(is_used),
    )
    if not len(boxes):
        return
    high = boxes[:, :2] + boxes[:, 2:]
    outside = (high > size[image] + 1).any(1) | (boxes[:, :2] < -1).any(1)
    if not outside.any():
        return
    share = outside.mean()
    has_corners = (
        (boxes[:, 2:] > boxes[:, :2]).all()
        and (boxes[:, 2:] <= size[image] + 1).all()
        and share >= MAX_OUTSIDE_SHARE
    )
    # Images with boxes outside, all of which fit into the turned image.
    turned = (high > size[image][:, ::-1] + 1).any(1)
    num_outside = np.bincount(image[outside], minlength=len(images))
    num_turned = np.bincount(image[turned], minlength=len(images))
    is_turned = (num_outside > 0) & (num_turned == 0)
    way_out = 'mmdet trains with such boxes unchanged'
    if has_corners:
        way_out = (
            'all look like [x1, y1, x2, y2]; expected [x, y, width, height]'
        )
    elif is_turned.sum() > (num_outside > 0).sum() / 2 and (
        share >= MAX_OUTSIDE_SHARE or is_turned.sum() >= MIN_TURNED
    ):
        way_out = (
            f'in {is_turned.sum():,} images they would fit if width and '
            'height were exchanged; correct the size of these images'
        )
        share = 1.0
    if (high > 10 * size[image]).any():  # no rounding
        share = 1.0
    report.add_rows(
        Severity.WARNING if share >= MAX_OUTSIDE_SHARE else Severity.NOTE,
        'annotations',
        rows[outside],
        lambda i: (
            f'has bbox {annotations[i]["bbox"]}, which reaches beyond its '
            'image of '
            + ' x '.join(
                f'{v:g}' for v in size[row_of[annotations[i]['image_id']]]
            )
            + ' pixels'
        ),
        way_out,
    )


def _check_masks(
    report: Report,
    content: dict,
    optional_masks: bool = False,
    needs_all: bool = False,
) -> None:
    """Check the segmentations of a set whose masks train.

    In an evaluation each object needs one: ``needs_all``.
    """
    size_of = {i['id']: image_size(i) for i in content['images']}
    rows_of: dict[str, list[int]] = {}
    texts: dict[int, str] = {}
    for i, annotation in enumerate(content['annotations']):
        segmentation = annotation.get('segmentation')
        kind, text = mask_fault(segmentation, size_of[annotation['image_id']])
        if kind:
            rows = rows_of.setdefault(kind, [])
            if not rows:
                texts[i] = text
            rows.append(i)
    if optional_masks:
        rows_of.pop('missing', None)
        rows_of.pop('empty', None)
    for kind, (severity, way_out) in MASK_FAULTS.items():
        if needs_all and kind in ('missing', 'empty'):
            severity = Severity.ERROR
            way_out = 'an evaluation of masks needs one for each object'
        report.add_rows(
            severity,
            'annotations',
            rows_of.get(kind, ()),
            lambda i: (
                f"has a 'segmentation' that {texts[i]}"
                if 'segmentation' in content['annotations'][i]
                else "has no 'segmentation'"
            ),
            way_out,
        )
