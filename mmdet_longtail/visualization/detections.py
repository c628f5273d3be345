"""Images with true positives, false positives and missed objects.

`ImageSet` selects images and describes the result of a detector in them.
`choose_drawn` selects the detections to draw, and `draw` renders detectors
side by side. The page around the figures is the template detections.html.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contourpy import contour_generator
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from PIL import Image, ImageOps
from pycocotools import mask as mask_utils

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.evaluation.functional import GroundTruth, Matches
from mmdet_longtail.evaluation.functional.detections import best_rows
from mmdet_longtail.structures.annotations import image_file_name
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.visualization.figures import display_name

NUM_FALSE = 5
NUM_LABELS = 200  # More hide the image, and take minutes.
PANEL_WIDTH = 6.0
LABEL_SHIFTS = np.array([0, -1, 1, -2, 2, -3, 3, -4, 4])  # in label heights
KINDS: dict[str, dict[str, Any]] = {
    'true positive': dict(edgecolor='#16a34a', linewidth=2.2, zorder=3),
    'false positive': dict(edgecolor='#dc2626', linewidth=1.4, zorder=2),
    'missed': dict(
        edgecolor='#fde047', linewidth=1.6, linestyle=(0, (4, 3)), zorder=4
    ),
}


class Shape(NamedTuple):
    """A detection or an object in an image."""

    kind: str  # a key of KINDS
    outlines: list[np.ndarray]  # one (k, 2) per piece, x and y in pixels
    text: str
    is_rare: bool


class Panel(NamedTuple):
    """The result of one detector in one image."""

    heading: str
    shapes: Sequence[Shape]  # the most important first


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of a validation set. An image is named by its position.

    Args:
        truth (GroundTruth): The validation set.
        statistics (ClassStatistics, optional): Counts of the training set.
            Without them no class is rare.
        folder (str | Path, optional): The folder where file names start.
    """

    truth: GroundTruth
    statistics: ClassStatistics | None = None
    folder: str | Path | None = None

    @cached_property
    def is_rare(self) -> np.ndarray:
        """The classes to emphasize (C,) bool."""
        if self.statistics is None:
            return np.zeros(self.truth.num_classes, bool)
        return self.statistics.frequency_groups()[0].members

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
        is_object = ~self.truth.is_ignored & is_wanted[label]
        counts = np.zeros(self.truth.num_classes)
        if self.statistics is not None:
            counts = self.statistics.image_count
        num_images, C = len(self.truth.images), self.truth.num_classes
        pairs = np.unique(label[is_object] * num_images + image[is_object])
        starts = np.searchsorted(pairs, num_images * np.arange(1, C))
        images_of = np.split(pairs % num_images, starts)  # per class
        order: dict[int, None] = {}
        for members in (self.is_rare, ~self.is_rare):
            queues = []
            for c in np.argsort(counts, kind='stable'):
                found = images_of[c]
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
        path = Path(self.folder or '', self.file_name(image))
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

    def caption(self, image: int) -> Markup:
        """List the classes of an image as HTML, the rare ones bold and first.

        The number of training images follows in brackets, if known.
        """
        names = []
        labels = dict.fromkeys(self.truth.label[self.truth.image == image])
        for c in sorted(labels, key=lambda label: not self.is_rare[label]):
            name = display_name(self.truth.class_names[c])
            if self.statistics is not None:
                name += f' ({self.statistics.image_count[c]})'
            text = '<b>{}</b>' if self.is_rare[c] else '<span>{}</span>'
            names.append(Markup(text).format(name))
        return Markup(', ').join(names)

    def panel(
        self, image: int, name: str, matches: Matches, drawn: np.ndarray
    ) -> Panel:
        """Describe the result of a detector in an image.

        Args:
            image (int): Position of the image.
            name (str): The detector.
            matches (Matches): n detections at one IoU threshold.
            drawn (np.ndarray): (n,) bool, see `choose_drawn`.
        """
        truth, detections = self.truth, matches.spec.detections
        is_true, is_false = matches.is_true[:, 0], matches.is_false[:, 0]
        in_image = detections.image == image
        rows = np.flatnonzero(in_image & drawn)
        rows = rows[np.argsort(-detections.score[rows], kind='stable')]
        objects = np.flatnonzero(truth.image == image)
        found = matches.is_found[objects, 0]
        missed = matches.is_missed[objects, 0]
        shapes = []
        for kind, part, chosen in (
            ('true positive', detections, rows[is_true[rows]]),
            ('missed', truth, objects[missed]),
            ('false positive', detections, rows[is_false[rows]]),
        ):
            for row in chosen.tolist():
                if matches.spec.iou_type == 'segm':
                    outlines = mask_outlines(part.mask(row))
                else:
                    outlines = [box_corners(part.box[row])]
                label = part.label[row]
                text = display_name(truth.class_names[label])
                if part is detections:
                    text += f' {detections.score[row]:.2g}'
                is_rare = bool(self.is_rare[label])
                shapes.append(Shape(kind, outlines, text, is_rare))
        rare = self.is_rare[truth.label[objects]]
        num_found, num_missed = found.sum(), missed.sum()
        text = f'{name}\n{num_found} of {num_found + num_missed} objects found'
        if num_rare := ((found | missed) & rare).sum():
            text += f', {found[rare].sum()} of {num_rare} rare'
        num_false = is_false[rows].sum(), is_false[in_image].sum()
        text += '; {} of {} false positives drawn'.format(*num_false)
        if len(shapes) > NUM_LABELS:
            text += f'\n{NUM_LABELS} of {len(shapes)} outlines have a label'
        return Panel(text, shapes)


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
    """Write each label at the top left corner of its shape.

    Only the most important `NUM_LABELS` shapes get one.
    A label moves a few lines to where it covers fewest of the labels before.
    """
    renderer = FigureCanvasAgg(axes.get_figure()).get_renderer()
    frame = axes.get_window_extent()
    starts = ends = np.zeros((0, 2))  # (labels, 2), corners in pixels
    for shape in shapes[:NUM_LABELS]:
        if not shape.outlines:
            continue
        color = KINDS[shape.kind]['edgecolor']
        text = axes.text(
            0,
            0,
            shape.text,
            color='#1e293b' if shape.kind == 'missed' else 'white',
            size=7.5,
            weight='bold' if shape.is_rare else 'normal',
            bbox=dict(facecolor=color, edgecolor='none', pad=1, alpha=0.85),
            va='bottom',
            parse_math=False,
            zorder=5,
            in_layout=False,  # Else the axes would shrink and labels move.
        )
        size = np.array(text.get_window_extent(renderer).size) + 3
        corners = axes.transData.transform(np.concatenate(shape.outlines))
        corner = corners[:, 0].min(), corners[:, 1].max()
        places = corner + LABEL_SHIFTS[:, None] * (0, size[1])  # (P, 2)
        places = np.maximum(np.minimum(places, frame.max - size), frame.min)
        lows = places[:, None]  # (P, 1, 2)
        covers = ((lows < ends) & (starts < lows + size)).all(2)
        start = places[covers.sum(1).argmin()]
        starts = np.vstack([starts, start])
        ends = np.vstack([ends, start + size])
        x, y = axes.transData.inverted().transform(start + 1.5)
        text.set_position((x, y))
