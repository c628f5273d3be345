"""Images with true positives, false positives and missed objects.

`ImageSet` selects images and describes the result of a detector in them.
`choose_drawn` selects the detections to draw, and `draw` renders detectors
side by side. The page around the figures is the template detections.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image, ImageOps
from pycocotools import mask as mask_utils

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.evaluation.functional import (
    Detections,
    GroundTruth,
    Matches,
)
from mmdet_longtail.evaluation.functional.detections import best_rows
from mmdet_longtail.structures.annotations import image_file_name
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
        shapes (Sequence[Shape]): The shapes, the most important first.
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


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a validation set. An image is named by its position.

    Args:
        truth (GroundTruth): The validation set.
        is_rare (np.ndarray): (C,) bool, the classes to emphasize.
        statistics (ClassStatistics, optional): Counts of the training set.
        folder (str | Path): The folder where file names start.
    """

    truth: GroundTruth
    is_rare: np.ndarray
    statistics: ClassStatistics | None = None
    folder: str | Path = ''

    @property
    def image_count(self) -> np.ndarray:
        """Training images per class (C,), 0 where unknown."""
        if self.statistics is None:
            return np.zeros(self.truth.num_classes, np.int64)
        return self.statistics.image_count

    def choose(self, is_wanted: np.ndarray, number: int) -> list[int]:
        """Choose images by their annotations alone, rare classes first.

        The classes take turns, from the rarest to the most frequent rare
        class, then the other classes. Each class adds the image with most
        rare objects. If there are more classes than images, the choice is
        spread evenly over the classes.

        Args:
            is_wanted (np.ndarray): (C,) bool; each image has an object of one
                of these classes.
            number (int): The largest number of images.
        """
        label, image = self.truth.label, self.truth.image
        num_rare = np.bincount(image, self.is_rare[label])
        is_object = (self.truth.column('iscrowd') == 0) & is_wanted[label]
        order: dict[int, None] = {}
        for members in (self.is_rare, ~self.is_rare):
            queues = []
            for c in np.argsort(self.image_count, kind='stable'):
                found = np.unique(image[is_object & (label == c)])
                if members[c] and len(found):
                    best = np.argsort(-num_rare[found], kind='stable')
                    queues.append(found[best].tolist())
            spread = np.linspace(0, len(queues) - 1, min(number, len(queues)))
            order |= dict.fromkeys(queues[int(place)][0] for place in spread)
            for turn in zip_longest(*queues):
                order |= dict.fromkeys(i for i in turn if i is not None)
        return list(order)[:number]

    def file_name(self, image: int) -> str:
        """Return the file name of an image in the annotations."""
        return image_file_name(self.truth.images[image])

    def path(self, image: int) -> Path:
        """Return the path of an image.

        Raises:
            LongTailError: If the image is missing.
        """
        path = Path(self.folder, self.file_name(image))
        if not path.is_file() and path.name.startswith('COCO_'):
            path = path.with_name(path.name[-16:])  # LVIS v0.5: 2014's names.
        check(
            path.is_file(),
            f'{path}: no such image; the file names in the annotations must '
            'start from --images',
        )
        return path

    def load(self, image: int) -> Image.Image:
        """Load an image upright and in RGB.

        Raises:
            LongTailError: If the image is missing, unreadable, or not of the
                annotated size.
        """
        path, entry = self.path(image), self.truth.images[image]
        try:
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file).convert('RGB')
        except OSError:
            raise LongTailError(f'{path}: not a readable image') from None
        w, h = picture.size
        expected = entry.get('width', w), entry.get('height', h)
        check(
            (w, h) == expected,
            f'{path}: is {w} x {h}, but the annotations have '
            f'{expected[0]} x {expected[1]}; are these the images of the '
            'validation set?',
        )
        return picture

    def class_names(self, image: int) -> tuple[list[str], list[str]]:
        """List the rare and the other classes of an image, once each.

        The number of training images follows in brackets, if known.
        """
        names: tuple[list[str], list[str]] = ([], [])
        labels = self.truth.label[self.truth.image == image]
        for c in dict.fromkeys(labels.tolist()):
            name = display_name(self.truth.class_names[c])
            if self.statistics is not None:
                name += f' ({self.statistics.image_count[c]})'
            names[not self.is_rare[c]].append(name)
        return names

    def shapes(
        self,
        kind: str,
        part: Detections | GroundTruth,
        rows: np.ndarray,
        iou_type: str,
    ) -> list[Shape]:
        """Return the shapes of some rows of detections or annotations."""
        return [
            Shape(
                kind,
                mask_outlines(part.mask(row))
                if iou_type == 'segm'
                else [box_corners(part.box[row])],
                display_name(self.truth.class_names[part.label[row]]),
                bool(self.is_rare[part.label[row]]),
                part.score[row] if isinstance(part, Detections) else None,
            )
            for row in rows.tolist()
        ]

    def panel(
        self,
        image: int,
        name: str,
        matches: Matches,
        drawn: np.ndarray | None = None,
    ) -> Panel:
        """Describe the result of a detector in an image.

        Args:
            image (int): Position of the image.
            name (str): The detector.
            matches (Matches): n detections at one IoU threshold.
            drawn (np.ndarray, optional): (n,) bool, the detections to draw;
                None draws all.
        """
        detections, iou_type = matches.spec.detections, matches.spec.iou_type
        is_true, is_false = matches.is_true[:, 0], matches.is_false[:, 0]
        rows = np.flatnonzero(detections.image == image)
        rows = rows[np.argsort(-detections.score[rows], kind='stable')]
        num_false = int(is_false[rows].sum())
        if drawn is not None:
            rows = rows[drawn[rows]]
        is_object = (matches.is_found | matches.is_missed)[:, 0]
        objects = np.flatnonzero((self.truth.image == image) & is_object)
        is_found = matches.is_found[objects, 0]
        ignored = rows[~is_true[rows] & ~is_false[rows]]
        shapes: list[Shape] = []
        for kind, part, chosen in (
            ('true positive', detections, rows[is_true[rows]]),
            ('missed', self.truth, objects[~is_found]),
            ('false positive', detections, rows[is_false[rows]]),
            ('not counted', detections, ignored),
        ):
            shapes += self.shapes(kind, part, chosen, iou_type)
        is_rare = self.is_rare[self.truth.label[objects]]
        return Panel(name, shapes, is_found, is_rare, num_false)


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
    """Ignore the detections and objects of classes outside a mask (C,)."""
    detected = is_wanted[matches.spec.detections.label, None]
    annotated = is_wanted[matches.spec.ground_truth.label, None]
    return replace(
        matches,
        is_true=matches.is_true & detected,
        is_false=matches.is_false & detected,
        is_found=matches.is_found & annotated,
        is_missed=matches.is_missed & annotated,
    )


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


def draw(image: Image.Image, title: str, panels: Sequence[Panel]) -> Figure:
    """Draw the panels of an image side by side."""
    height = PANEL_WIDTH * image.height / image.width + 1.2
    figure = Figure((PANEL_WIDTH * len(panels), height), layout='constrained')
    figure.suptitle(title, x=0.004, ha='left', size=11, parse_math=False)
    figure.legend(
        handles=[Patch(fill=False, label=k, **v) for k, v in KINDS.items()],
        loc='outside lower left',
        ncols=len(KINDS),
    )
    shadow = withStroke(linewidth=3.5, foreground='#0f172a99')
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, panel in zip(all_axes, panels, strict=True):
        axes.imshow(image, extent=(0, image.width, image.height, 0))
        axes.set_axis_off()
        axes.set_title(panel.heading, loc='left', size=10, parse_math=False)
        for kind, style in KINDS.items():
            shapes = [shape for shape in panel.shapes if shape.kind == kind]
            outlines = [o for shape in shapes for o in shape.outlines]
            collection = PolyCollection(
                outlines, facecolor='none', path_effects=[shadow], **style
            )
            axes.add_collection(collection, autolim=False)
    figure.draw_without_rendering()  # The labels need the axes' position.
    for axes, panel in zip(all_axes, panels, strict=True):
        write_labels(axes, panel.shapes)
    return figure


def write_labels(axes: Axes, shapes: Sequence[Shape]) -> None:
    """Write each label at the corner of its shape that covers fewest labels.

    The pixels under labels are marked, so the time per label does not depend
    on the number of labels. The most important shape is first.
    """
    renderer = FigureCanvasAgg(axes.get_figure()).get_renderer()
    frame = axes.get_window_extent()
    origin, size = np.array(frame.min), np.array(frame.size)
    covered = np.zeros(np.ceil(size[::-1]).astype(int), bool)
    for shape in shapes:
        if not shape.outlines:
            continue
        color = KINDS[shape.kind]['edgecolor']
        text = axes.text(
            *(0, 0, shape.text),
            color='#1e293b' if shape.kind == 'missed' else 'white',
            size=LABEL_SIZE,
            weight='bold' if shape.is_rare else 'normal',
            bbox=dict(facecolor=color, edgecolor='none', pad=1, alpha=0.85),
            va='bottom',
            parse_math=False,
            zorder=5,
            in_layout=False,  # Else the axes would shrink and labels move.
        )
        w, h = np.ceil(text.get_window_extent(renderer).size).astype(int) + 3
        corners = axes.transData.transform(np.concatenate(shape.outlines))
        left, bottom = corners.min(0) - origin
        right, top = corners.max(0) - origin
        outside = product((left, right - w), (top, bottom - h))
        places = [*outside, (left, top - h), (left, bottom)]
        starts = np.clip(places, 0, np.maximum(size - (w, h), 0)).astype(int)
        areas = [covered[y : y + h, x : x + w] for x, y in starts]
        best = np.argmin([area.sum() for area in areas])
        areas[best][:] = True
        place = starts[best] + origin + 1.5
        x, y = axes.transData.inverted().transform(place)
        text.set_position((x, y))
