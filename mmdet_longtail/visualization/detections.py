"""Images with what detectors found in them, right, wrong and missed.

`choose_images` says which images to show, `judge` what the evaluator makes of
the detections in them, `choose_drawn` which of these to draw, and `draw` puts
the detectors side by side. The page around the pictures is the template
detections.html beside this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from pycocotools import mask as mask_utils

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    match_detections,
)
from mmdet_longtail.visualization.report import readable

NUM_FALSE = 5
PANEL_WIDTH = 6.0
KINDS: dict[str, dict[str, Any]] = {
    'true positive': dict(edgecolor='#16a34a', linewidth=2.2, zorder=3),
    'false positive': dict(edgecolor='#dc2626', linewidth=1.4, zorder=2),
    'missed': dict(
        edgecolor='#fde047', linewidth=1.6, linestyle=(0, (4, 3)), zorder=4
    ),
}


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the evaluator makes of detections and objects.

    Args:
        detections (Detections): n detections.
        is_true, is_false (np.ndarray): (n,) bool, whether each is a true or
            a false positive; neither where it does not count.
        is_found, is_missed (np.ndarray): (m,) bool for each annotation of
            the validation set; neither for crowds and in images that were
            not looked at.
    """

    detections: Detections
    is_true: np.ndarray
    is_false: np.ndarray
    is_found: np.ndarray
    is_missed: np.ndarray


# -- what to show -----------------------------------------------------------


def choose_images(
    ground_truth: GroundTruth,
    image_count: np.ndarray,
    is_rare: np.ndarray,
    is_wanted: np.ndarray,
    number: int,
) -> list[int]:
    """Choose images by their annotations alone, rare classes first.

    The rare classes take turns, the rarest first, each with the image that
    has most objects of rare classes; then the others do. Where there are
    more classes than images to show, they are spread over the classes.

    Args:
        ground_truth (GroundTruth): The validation set.
        image_count (np.ndarray): (C,) training images of each class.
        is_rare (np.ndarray): (C,) bool.
        is_wanted (np.ndarray): (C,) bool, only images with objects of these.
        number (int): Images to show at most.

    Returns:
        list[int]: Positions in ``ground_truth.images``.
    """
    label = ground_truth.label
    num_rare = np.bincount(
        ground_truth.image,
        is_rare[label],
        minlength=len(ground_truth.images),
    )
    images_of: list[dict[int, None]] = [{} for _ in is_wanted]
    is_object = (ground_truth.column('iscrowd') == 0) & is_wanted[label]
    for row in np.flatnonzero(is_object).tolist():
        images_of[label[row]][int(ground_truth.image[row])] = None
    order: dict[int, None] = {}
    for members in (is_rare, ~is_rare):
        queues = [
            sorted(images_of[c], key=lambda image: -num_rare[image])
            for c in np.argsort(image_count, kind='stable').tolist()
            if members[c] and images_of[c]
        ]
        spread = np.linspace(0, len(queues) - 1, min(number, len(queues)))
        order |= dict.fromkeys(queues[int(place)][0] for place in spread)
        for turn in zip_longest(*queues):
            order |= dict.fromkeys(i for i in turn if i is not None)
    return list(order)[:number]


def judge(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    iou_threshold: float,
    images: Sequence[int],
) -> Verdicts:
    """Match detections with objects as the evaluator does.

    By LVIS's rules the best 300 detections of an image take part, by COCO's
    the best 100 of an image and class.

    Args:
        ground_truth (GroundTruth): The validation set.
        detections (Detections): What was found in it.
        iou_type (str): 'bbox' or 'segm'.
        iou_threshold (float): The overlap from which a detection finds an
            object, 0..1.
        images (Sequence[int]): Positions of the images to look at.
    """
    detections = detections.take(
        np.flatnonzero(np.isin(detections.image, images))
    )
    spec = EvaluationSpec(ground_truth, detections)
    matches = match_detections(spec, [iou_threshold], images)
    is_true, is_false = matches.is_true[:, 0], matches.is_false[:, 0]
    is_found, is_missed = matches.is_found[:, 0], matches.is_missed[:, 0]
    return Verdicts(detections, is_true, is_false, is_found, is_missed)


def choose_drawn(
    label: np.ndarray,
    score: np.ndarray,
    is_true: np.ndarray,
    is_false: np.ndarray,
    score_thr: float | None = None,
) -> np.ndarray:
    """Choose which detections of one image to draw.

    All true positives; of their classes the false positives whose score is
    not below that of the class's lowest-scored true positive; of all other
    classes together the five best-scored false positives.

    Args:
        label (np.ndarray): (n,) int64.
        score (np.ndarray): (n,).
        is_true (np.ndarray): (n,) bool, see `Verdicts`.
        is_false (np.ndarray): (n,) bool.
        score_thr (float, optional): In place of this rule, draw what counts
            and has at least this score.

    Returns:
        np.ndarray: (n,) bool.
    """
    if score_thr is not None:
        return (is_true | is_false) & (score >= score_thr)
    drawn = is_true.copy()
    for c in np.unique(label[is_true]):
        lowest = score[is_true & (label == c)].min()
        drawn |= is_false & (label == c) & (score >= lowest)
    others = np.flatnonzero(is_false & ~np.isin(label, label[is_true]))
    best = np.argsort(-score[others], kind='stable')[:NUM_FALSE]
    drawn[others[best]] = True
    return drawn


# -- the pictures -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shape:
    """A detection or a missed object in a picture.

    Args:
        kind (str): A key of `KINDS`.
        outlines (Sequence[np.ndarray]): Each (k, 2), corners x and y in
            pixels; several where a mask is in pieces, none where it is empty.
        text (str): Its label.
        is_rare (bool): Whether its class is.
    """

    kind: str
    outlines: Sequence[np.ndarray]
    text: str
    is_rare: bool


@dataclass(frozen=True, eq=False)
class Panel:
    """What one detector did with an image.

    Args:
        heading (str): What stands above.
        shapes (Sequence[Shape]): What to draw, the most important first.
    """

    heading: str
    shapes: Sequence[Shape]


def read_picture(path: Path) -> np.ndarray:
    """Read an image (height, width, 3) uint8, RGB.

    Raises:
        LongTailError: If there is none, or it cannot be read.
    """
    if not path.is_file():
        raise LongTailError(
            f'{path}: no such image; the file names in the annotations have '
            'to start from --images'
        )
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise LongTailError(f'{path}: not an image that can be read')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def describe(
    name: str,
    ground_truth: GroundTruth,
    verdicts: Verdicts,
    iou_type: str,
    image: int,
    is_rare: np.ndarray,
    is_wanted: np.ndarray,
    score_thr: float | None = None,
) -> Panel:
    """Collect what a detector did with an image.

    Args:
        name (str): What the detector is called.
        ground_truth (GroundTruth): The validation set.
        verdicts (Verdicts): From `judge`.
        iou_type (str): 'bbox' or 'segm'.
        image (int): Its position in ``ground_truth.images``.
        is_rare (np.ndarray): (C,) bool.
        is_wanted (np.ndarray): (C,) bool, the classes to draw.
        score_thr (float, optional): See `choose_drawn`.
    """
    detections = verdicts.detections
    class_names = [readable(name) for name in ground_truth.class_names]
    rows = np.flatnonzero(
        (detections.image == image) & is_wanted[detections.label]
    )
    rows = rows[np.argsort(-detections.score[rows], kind='stable')]
    is_true, is_false = verdicts.is_true[rows], verdicts.is_false[rows]
    label, score = detections.label[rows], detections.score[rows]
    drawn = choose_drawn(label, score, is_true, is_false, score_thr)

    is_here = (ground_truth.image == image) & is_wanted[ground_truth.label]
    found = ground_truth.label[is_here & verdicts.is_found]
    [missed] = np.nonzero(is_here & verdicts.is_missed)
    lost = ground_truth.label[missed]

    def detected(chosen: np.ndarray, kind: str) -> list[Shape]:
        return [
            Shape(
                kind,
                detection_outlines(detections, rows[i], iou_type),
                f'{class_names[label[i]]} {score[i]:.2g}',
                bool(is_rare[label[i]]),
            )
            for i in np.flatnonzero(chosen).tolist()
        ]

    shapes = [
        *detected(drawn & is_true, 'true positive'),
        *(
            Shape(
                'missed',
                object_outlines(ground_truth, row, iou_type),
                class_names[ground_truth.label[row]],
                bool(is_rare[ground_truth.label[row]]),
            )
            for row in missed.tolist()
        ),
        *detected(drawn & is_false, 'false positive'),
    ]
    heading = f'{name}\n{len(found)} of {len(found) + len(lost)} objects found'
    num_rare = is_rare[found].sum() + is_rare[lost].sum()
    if num_rare:
        heading += f', {is_rare[found].sum()} of {num_rare} rare'
    heading += (
        f'; {(drawn & is_false).sum()} of {is_false.sum()} false positives '
        'drawn'
    )
    return Panel(heading, shapes)


def detection_outlines(
    detections: Detections, row: int, iou_type: str
) -> list[np.ndarray]:
    """Corners of a detection, see `Shape`."""
    if iou_type == 'segm':
        assert detections.masks is not None
        return mask_outlines(mask_utils.decode(detections.masks[row]))
    return [box_corners(detections.box[row])]


def object_outlines(
    ground_truth: GroundTruth, row: int, iou_type: str
) -> list[np.ndarray]:
    """Corners of an annotation, see `Shape`."""
    annotation = ground_truth.annotations[row]
    if iou_type == 'segm':
        return mask_outlines(mask_utils.decode(ground_truth.mask(row)))
    return [box_corners(annotation['bbox'])]


def box_corners(box: Sequence[float]) -> np.ndarray:
    """Corners (4, 2) of a box x, y, width, height."""
    x, y, w, h = box
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])


def mask_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of the pieces of a mask (height, width) uint8."""
    contours, _ = cv2.findContours(
        mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    # It gives indices of pixels; their centres are half a pixel further.
    return [contour[:, 0] + 0.5 for contour in contours]


def draw(picture: np.ndarray, title: str, panels: Sequence[Panel]) -> Figure:
    """Draw the detectors side by side.

    Args:
        picture (np.ndarray): (height, width, 3) uint8, RGB.
        title (str): What stands above.
        panels (Sequence[Panel]): One for each detector.
    """
    height, width = picture.shape[:2]
    size = (PANEL_WIDTH * len(panels), PANEL_WIDTH * height / width + 1.2)
    figure = Figure(size, layout='constrained')
    figure.suptitle(title, x=0.004, ha='left', size=11, parse_math=False)
    figure.legend(
        handles=[Patch(fill=False, label=k, **v) for k, v in KINDS.items()],
        loc='outside lower left',
        ncols=len(KINDS),
    )
    every_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(every_axes, panels, strict=True):
        axes.imshow(picture, extent=(0, width, height, 0))
        axes.set_axis_off()
        axes.set_title(panel.heading, loc='left', size=10, parse_math=False)
        for shape in reversed(panel.shapes):
            for outline in shape.outlines:
                axes.add_patch(
                    Polygon(
                        outline,
                        fill=False,
                        path_effects=[
                            withStroke(linewidth=3.5, foreground='#0f172a99')
                        ],
                        **KINDS[shape.kind],
                    )
                )
    figure.draw_without_rendering()  # Labels need to know where the axes are.
    for axes, panel in zip(every_axes, panels, strict=True):
        write_labels(axes, panel.shapes)
    return figure


def write_labels(axes: Axes, shapes: Sequence[Shape]) -> None:
    """Write each label at a corner of its shape where it hides least.

    Args:
        axes (Axes): Where the shapes are drawn.
        shapes (Sequence[Shape]): The most important first: it chooses first.
    """
    taken: list[Bbox] = []
    for shape in shapes:
        if not shape.outlines:
            continue
        corners = np.concatenate(list(shape.outlines))
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        colour = KINDS[shape.kind]['edgecolor']
        text = axes.text(
            left,
            top,
            shape.text,
            color='#1e293b' if shape.kind == 'missed' else 'white',
            size=7.5,
            weight='bold' if shape.is_rare else 'normal',
            bbox=dict(facecolor=colour, edgecolor='none', pad=1, alpha=0.85),
            parse_math=False,
            zorder=5,
            in_layout=False,  # Else the axes would shrink, and labels move.
        )
        places = [
            (left, top, 'left', 'bottom'),
            (left, bottom, 'left', 'top'),
            (right, top, 'right', 'bottom'),
            (right, bottom, 'right', 'top'),
            (left, top, 'left', 'top'),
            (left, bottom, 'left', 'bottom'),
        ]
        best = min(places, key=lambda place: hidden(put(text, *place), taken))
        taken.append(put(text, *best))


def put(text: Text, x: float, y: float, ha: str, va: str) -> Bbox:
    """Move a text into its axes and say where it is then, in pixels."""
    axes = text.axes
    assert axes is not None
    text.set(x=x, y=y, ha=ha, va=va)
    box = text.get_window_extent().padded(1.5)
    inside = axes.get_window_extent()
    shift = np.maximum(np.array(inside.min) - box.min, 0)
    shift += np.minimum(np.array(inside.max) - box.max, 0)
    pixels = axes.transData.transform((x, y)) + shift
    x, y = axes.transData.inverted().transform(pixels)
    text.set(x=x, y=y)
    return box.translated(*shift)


def hidden(box: Bbox, taken: Sequence[Bbox]) -> float:
    """Area of other texts that a text hides."""
    overlaps = [Bbox.intersection(box, other) for other in taken]
    return sum(o.width * o.height for o in overlaps if o)


def build_page(**content: Any) -> str:
    """Write the page that shows the pictures in order.

    Args:
        **content (Any): What the template detections.html names.
    """
    environment = Environment(
        loader=PackageLoader('mmdet_longtail', 'visualization'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('detections.html').render(**content)
