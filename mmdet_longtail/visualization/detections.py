"""Images with true positives, false positives and missed objects.

`choose_images` selects images, `choose_drawn` the detections to draw in them,
`describe` collects what a detector made of an image, and `draw` renders the
detectors side by side. The page around them is the template detections.html.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    Matches,
)
from mmdet_longtail.evaluation.functional.detections import best_rows
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.visualization.figures import display_name

NUM_FALSE = 5
PANEL_WIDTH = 6.0
LABEL_SIZE = 7.5
KINDS: dict[str, dict[str, Any]] = {
    'true positive': dict(edgecolor='#16a34a', linewidth=2.2, zorder=3),
    'false positive': dict(edgecolor='#dc2626', linewidth=1.4, zorder=2),
    'missed': dict(
        edgecolor='#fde047', linewidth=1.6, linestyle=(0, (4, 3)), zorder=4
    ),
}


# -- what to show -----------------------------------------------------------


def choose_images(
    ground_truth: GroundTruth,
    image_count: np.ndarray,
    is_rare: np.ndarray,
    is_wanted: np.ndarray,
    number: int,
) -> list[int]:
    """Choose images by their annotations alone, rare classes first.

    The classes take turns, from the rarest to the most frequent rare class,
    then the other classes. Each class adds the image with most rare objects.
    If there are more classes than images, the choice is spread evenly over
    the classes.

    Args:
        ground_truth (GroundTruth): The validation set.
        image_count (np.ndarray): (C,) training images per class.
        is_rare (np.ndarray): (C,) bool.
        is_wanted (np.ndarray): (C,) bool; each image has an object of one of
            these classes.
        number (int): The largest number of images.

    Returns:
        list[int]: Positions in ``ground_truth.images``.
    """
    label = ground_truth.label
    num_rare = np.bincount(
        ground_truth.image, is_rare[label], minlength=len(ground_truth.images)
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


def choose_drawn(
    matches: Matches, score_thr: float | None = None
) -> np.ndarray:
    """Choose the detections to draw, per image.

    All true positives are drawn. For their classes, the false positives whose
    score reaches the lowest score of a true positive are drawn. For all other
    classes together, the five best-scored false positives are drawn.

    Args:
        matches (Matches): n detections at one IoU threshold.
        score_thr (float, optional): Draw each true and false positive with at
            least this score instead.

    Returns:
        np.ndarray: (n,) bool.
    """
    detections = matches.spec.detections
    is_true, is_false = matches.is_true[:, 0], matches.is_false[:, 0]
    image, label, score = detections.image, detections.label, detections.score
    if score_thr is not None:
        return (is_true | is_false) & (score >= score_thr)
    pair = image * matches.spec.ground_truth.num_classes + label
    _, pair = np.unique(pair, return_inverse=True)
    lowest = np.full(len(pair), np.inf)
    np.minimum.at(lowest, pair[is_true], score[is_true])
    drawn = is_true | (is_false & (score >= lowest[pair]))
    others = np.flatnonzero(is_false & np.isinf(lowest[pair]))
    drawn[others[best_rows(image[others], score[others], NUM_FALSE)]] = True
    return drawn


def restrict_to_classes(matches: Matches, is_wanted: np.ndarray) -> Matches:
    """Ignore the detections and objects of the other classes.

    Args:
        matches (Matches): Any.
        is_wanted (np.ndarray): (C,) bool.
    """
    detected = is_wanted[matches.spec.detections.label, None]
    annotated = is_wanted[matches.spec.ground_truth.label, None]
    return replace(
        matches,
        is_true=matches.is_true & detected,
        is_false=matches.is_false & detected,
        is_found=matches.is_found & annotated,
        is_missed=matches.is_missed & annotated,
    )


# -- one image --------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shape:
    """A detection or an object in an image.

    Args:
        kind (str): A key of `KINDS`, 'object' for an annotation, or 'not
            counted' for a detection that the evaluation ignores.
        outlines (list[np.ndarray]): Polygons (k, 2), corners x and y in
            pixels. A mask has one per piece.
        name (str): The class.
        is_rare (bool): Whether the class is rare.
        score (float, optional): Score of a detection.
    """

    kind: str
    outlines: list[np.ndarray]
    name: str
    is_rare: bool
    score: float | None = None

    @property
    def text(self) -> str:
        """Class name and score."""
        score = '' if self.score is None else f' {self.score:.2g}'
        return self.name + score


@dataclass(frozen=True, eq=False)
class Panel:
    """The result of one detector in one image, which has k objects.

    Args:
        name (str): The detector.
        shapes (Sequence[Shape]): What to draw, the most important first.
        is_found, is_rare (np.ndarray): (k,) bool per object.
        num_false (int): False positives, drawn or not.
    """

    name: str
    shapes: Sequence[Shape]
    is_found: np.ndarray
    is_rare: np.ndarray
    num_false: int

    @property
    def heading(self) -> str:
        """Title of the panel."""
        found, rare = self.is_found, self.is_rare
        text = f'{self.name}\n{found.sum()} of {len(found)} objects found'
        if rare.any():
            text += f', {found[rare].sum()} of {rare.sum()} rare'
        drawn = sum(shape.kind == 'false positive' for shape in self.shapes)
        return f'{text}; {drawn} of {self.num_false} false positives drawn'


def describe(
    name: str,
    matches: Matches,
    drawn: np.ndarray | None,
    image: int,
    is_rare: np.ndarray,
) -> Panel:
    """Collect the result of a detector in an image.

    Args:
        name (str): The detector.
        matches (Matches): n detections at one IoU threshold.
        drawn (np.ndarray, optional): (n,) bool, the detections to draw; None
            draws all.
        image (int): Position in ``ground_truth.images``.
        is_rare (np.ndarray): (C,) bool.
    """
    spec = matches.spec
    truth, detections = spec.ground_truth, spec.detections
    is_true, is_false = matches.is_true[:, 0], matches.is_false[:, 0]
    rows = np.flatnonzero(detections.image == image)
    rows = rows[np.argsort(-detections.score[rows], kind='stable')]
    num_false = int(is_false[rows].sum())
    if drawn is not None:
        rows = rows[drawn[rows]]
    is_object = (matches.is_found | matches.is_missed)[:, 0]
    objects = np.flatnonzero((truth.image == image) & is_object)
    is_found = matches.is_found[objects, 0]
    is_ignored = ~is_true & ~is_false
    return Panel(
        name,
        [
            shape
            for kind, part, chosen in (
                ('true positive', detections, rows[is_true[rows]]),
                ('missed', truth, objects[~is_found]),
                ('false positive', detections, rows[is_false[rows]]),
                ('not counted', detections, rows[is_ignored[rows]]),
            )
            for shape in make_shapes(kind, part, chosen, spec, is_rare)
        ],
        is_found,
        is_rare[truth.label[objects]],
        num_false,
    )


def make_shapes(
    kind: str,
    part: Detections | GroundTruth,
    rows: np.ndarray,
    spec: EvaluationSpec,
    is_rare: np.ndarray,
) -> list[Shape]:
    """Return the shapes of some rows of the detections or annotations."""
    label, box = part.label[rows], part.box[rows]
    names = [spec.ground_truth.class_names[c] for c in label]
    is_mask = spec.iou_type == 'segm'
    return [
        Shape(
            kind,
            mask_outlines(part.mask(row))
            if is_mask
            else [box_corners(box[i])],
            display_name(names[i]),
            bool(is_rare[label[i]]),
            float(part.score[row]) if isinstance(part, Detections) else None,
        )
        for i, row in enumerate(rows.tolist())
    ]


def name_classes(
    ground_truth: GroundTruth,
    image: int,
    is_rare: np.ndarray,
    statistics: ClassStatistics | None,
) -> tuple[list[str], list[str]]:
    """List the rare and the other classes of an image, once each.

    The number of training images follows in brackets, if known.
    """
    names: tuple[list[str], list[str]] = ([], [])
    labels = ground_truth.label[ground_truth.image == image]
    for c in dict.fromkeys(labels.tolist()):
        name = display_name(ground_truth.class_names[c])
        if statistics is not None:
            name += f' ({statistics.image_count[c]})'
        names[not is_rare[c]].append(name)
    return names


def box_corners(box: Sequence[float]) -> np.ndarray:
    """Return the corners (4, 2) of a box x, y, width, height."""
    x, y, w, h = box
    return np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)])


def mask_outlines(encoding: dict[str, Any]) -> list[np.ndarray]:
    """Return the outlines of a run-length encoded mask, see `Shape`."""
    padded = np.pad(mask_utils.decode(encoding), 1)
    lines: Any = contour_generator(z=padded).lines(0.5)
    # The center of the first pixel is (1, 1) in the padded mask.
    return [line - 0.5 for line in lines]


# -- the figure -------------------------------------------------------------


def draw(image: Image.Image, title: str, panels: Sequence[Panel]) -> Figure:
    """Draw the detectors side by side.

    Args:
        image (Image.Image): The image.
        title (str): Title of the figure.
        panels (Sequence[Panel]): One per detector.
    """
    size = (
        PANEL_WIDTH * len(panels),
        PANEL_WIDTH * image.height / image.width + 1.2,
    )
    figure = Figure(size, layout='constrained')
    figure.suptitle(title, x=0.004, ha='left', size=11, parse_math=False)
    figure.legend(
        handles=[Patch(fill=False, label=k, **v) for k, v in KINDS.items()],
        loc='outside lower left',
        ncols=len(KINDS),
    )
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.imshow(image, extent=(0, image.width, image.height, 0))
        axes.set_axis_off()
        axes.set_title(panel.heading, loc='left', size=10, parse_math=False)
        for kind, style in KINDS.items():
            axes.add_collection(
                PolyCollection(
                    [
                        outline
                        for shape in panel.shapes
                        if shape.kind == kind
                        for outline in shape.outlines
                    ],
                    facecolor='none',
                    path_effects=[
                        withStroke(linewidth=3.5, foreground='#0f172a99')
                    ],
                    **style,
                ),
                autolim=False,
            )
    figure.draw_without_rendering()  # The labels need the axes' position.
    for axes, panel in zip(all_axes, panels, strict=True):
        write_labels(axes, panel.shapes)
    return figure


def write_labels(axes: Axes, shapes: Sequence[Shape]) -> None:
    """Write each label at the corner of its shape that covers fewest labels.

    The pixels under labels are marked, so the time per label does not depend
    on the number of labels.

    Args:
        axes (Axes): Where the shapes are drawn.
        shapes (Sequence[Shape]): The most important first.
    """
    renderer = FigureCanvasAgg(axes.get_figure()).get_renderer()
    frame = axes.get_window_extent()
    origin, size = np.array(frame.min), np.array([frame.width, frame.height])
    covered = np.zeros(np.ceil(size[::-1]).astype(int), bool)
    for shape in shapes:
        if not shape.outlines:
            continue
        color = KINDS[shape.kind]['edgecolor']
        text = axes.text(
            0,
            0,
            shape.text,
            color='#1e293b' if shape.kind == 'missed' else 'white',
            size=LABEL_SIZE,
            weight='bold' if shape.is_rare else 'normal',
            bbox=dict(facecolor=color, edgecolor='none', pad=1, alpha=0.85),
            va='bottom',
            parse_math=False,
            zorder=5,
            in_layout=False,  # Else the axes would shrink and labels move.
        )
        extent = text.get_window_extent(renderer)
        w, h = math.ceil(extent.width) + 3, math.ceil(extent.height) + 3
        corners = axes.transData.transform(np.concatenate(shape.outlines))
        left, bottom = corners.min(0) - origin
        right, top = corners.max(0) - origin
        places = [
            (left, top),
            (left, bottom - h),
            (right - w, top),
            (right - w, bottom - h),
            (left, top - h),
            (left, bottom),
        ]
        starts = np.clip(places, 0, np.maximum(size - (w, h), 0)).astype(int)
        areas = [covered[y : y + h, x : x + w] for x, y in starts]
        best = np.argmin([area.sum() for area in areas])
        areas[best][:] = True
        place = starts[best] + origin + 1.5
        x, y = axes.transData.inverted().transform(place)
        text.set_position((x, y))
