"""A page that compares detectors on one validation set.

What a detector answered is counted here, drawn with matplotlib, and put into
the template report.html beside this file. The page needs nothing else: plots
and pictures are part of it.
"""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pycocotools import mask
from scipy.stats import spearmanr

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional.bootstrap import Difference
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
)

IOU_THRESHOLD = 0.5
NUM_RARE_EXAMPLES, NUM_OTHER_EXAMPLES = 6, 2
LARGEST_PICTURE = 480
NUM_DRAWS = 100
COLOURS = ('#6b7280', '#d97706', '#2563eb', '#059669', '#9333ea', '#be123c')
MARKERS = 'o^sDvP'
ANSWERS = {
    'the right class': '#15803d',
    'a class with at most as many training images': '#fcd34d',
    'a class with more training images': '#dc2626',
    'no box on it': '#cbd5e1',
}
HOW_IT_LEARNS = {
    'CrossEntropyLoss': 'each box of one class pushes the scores of all '
    'other classes down. A frequent class pushes often; a rare class is '
    'pushed down thousands of times and up a few times.',
    'EqualizationLoss': 'one yes-or-no question for each class. A box of '
    'another class no longer pushes the classes down that are in few '
    'training images; only background does.',
    'BalancedGroupSoftmaxLoss': 'classes with similarly many training boxes '
    'share a softmax of their own, so a frequent class cannot push a rare '
    'one down.',
}
WEIGHT_MEASURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    'norm': lambda rows: np.linalg.norm(rows, axis=1),
    'mean': lambda rows: rows.mean(axis=1),
}
STYLE = {
    'axes.edgecolor': '#94a3b8',
    'axes.labelcolor': '#334155',
    'axes.spines.right': False,
    'axes.spines.top': False,
    'font.size': 10,
    'legend.frameon': False,
    'svg.fonttype': 'none',  # text stays text, in the font of the page
    'svg.hashsalt': 'mmdet_longtail',
    'text.color': '#334155',
    'xtick.color': '#64748b',
    'ytick.color': '#64748b',
}


@dataclass(frozen=True, eq=False)
class Boxes:
    """The boxes of one image, annotated or detected.

    Args:
        boxes (np.ndarray): (N, 4) left, top, width, height in pixels.
        labels (np.ndarray): (N,) int64 in [0, C).
        scores (np.ndarray): (N,) falling; 1 for annotated boxes.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[tuple[Sequence[float], int, float]]) -> Boxes:
        """Collect rows of box, label and score; the best score first."""
        rows = sorted(rows, key=lambda row: -row[2])
        return cls(
            np.array([row[0] for row in rows], float).reshape(-1, 4),
            np.array([row[1] for row in rows], int),
            np.array([row[2] for row in rows], float),
        )

    def best(self, score_thr: float) -> Boxes:
        """Keep the boxes whose score is not below a threshold."""
        n = int((self.scores >= score_thr).sum())
        return Boxes(self.boxes[:n], self.labels[:n], self.scores[:n])


NO_BOXES = Boxes.of([])


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of the validation set.

    Args:
        path (str): The image file.
        truth (Boxes): The annotated boxes.
        checked (frozenset[int] | None): Labels that the image was checked
            for, as far as detections of them count; None is all.
    """

    path: str
    truth: Boxes
    checked: frozenset[int] | None


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """What every detector was evaluated on.

    Args:
        source (str): The annotation file.
        statistics (ClassStatistics): Counts of the training set.
        groups (Sequence[ClassGroup]): Groups of classes, rarest first.
        pictures (Mapping[Hashable, Picture]): The images by id.
    """

    source: str
    statistics: ClassStatistics
    groups: Sequence[ClassGroup]
    pictures: Mapping[Hashable, Picture]

    @property
    def num_objects(self) -> int:
        """Number of annotated boxes."""
        return sum(len(p.truth.labels) for p in self.pictures.values())


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector and its detections on the validation set.

    Args:
        name (str): What the page calls it.
        checkpoint (str): Where it was read.
        loss (str): Class name of its classification loss.
        training (str): How long it was trained, and what of it.
        metrics (Mapping[str, float]): AP, AP50, AP75 and the AP of each
            group, 0..1, -1 for a mean over no class.
        class_ap (np.ndarray): (C,) 0..1, NaN for a class without objects.
        class_weights (np.ndarray | None): (C, F) the row of fc_cls of each
            class; None for a detector without such a layer.
        detections (Mapping[Hashable, Boxes]): Detections by image id.
    """

    name: str
    checkpoint: str
    loss: str
    training: str
    metrics: Mapping[str, float]
    class_ap: np.ndarray
    class_weights: np.ndarray | None
    detections: Mapping[Hashable, Boxes]


# -- what the detectors answered -------------------------------------------


def first_answers(validation: ValidationSet, detector: Detector) -> np.ndarray:
    """Count which class has the highest score on each annotated object.

    The answer for an object is the class of the best-scored detection that
    overlaps it (IoU >= 0.5), so scales of scores do not matter.

    Args:
        validation (ValidationSet): The objects.
        detector (Detector): Its detections.

    Returns:
        np.ndarray: (G, 4) number of objects by the group of their class and
        by answer, in the order of ``ANSWERS``.
    """
    image_count = validation.statistics.image_count
    members = np.array([group.members for group in validation.groups])
    answers = np.zeros((len(members), len(ANSWERS)), int)
    for id, picture in validation.pictures.items():
        found = detector.detections.get(id, NO_BOXES)
        overlaps = overlap(found, picture.truth) >= IOU_THRESHOLD
        for label, is_on_it in zip(picture.truth.labels, overlaps.T):
            if not is_on_it.any():
                answer = 3
            else:
                said = found.labels[is_on_it.argmax()]
                is_rarer = image_count[said] <= image_count[label]
                answer = 0 if said == label else 1 if is_rarer else 2
            answers[members[:, label], answer] += 1
    return answers


def count_found(
    validation: ValidationSet, detector: Detector, score_thr: float
) -> np.ndarray:
    """Count the objects of each group that a detector finds.

    Returns:
        np.ndarray: (G,) objects with a detection of their class (IoU >= 0.5)
        whose score is not below the threshold.
    """
    members = np.array([group.members for group in validation.groups])
    found = np.zeros(len(members), int)
    for id, picture in validation.pictures.items():
        shown = detector.detections.get(id, NO_BOXES).best(score_thr)
        is_right = match(shown, picture.truth) >= 0
        found += members[:, shown.labels[is_right]].sum(axis=1)
    return found


def overlap(found: Boxes, truth: Boxes) -> np.ndarray:
    """IoU of each detection with each annotated box, (N, M)."""
    n, m = len(found.labels), len(truth.labels)
    if n == 0 or m == 0:
        return np.zeros((n, m))
    return mask.iou(found.boxes, truth.boxes, [0] * m)


def match(found: Boxes, truth: Boxes) -> np.ndarray:
    """Say which annotated box each detection found.

    The best score chooses first, among boxes of its class with IoU >= 0.5.

    Returns:
        np.ndarray: (N,) index of the annotated box, -1 for none.
    """
    free = overlap(found, truth)
    free[found.labels[:, None] != truth.labels] = 0
    matches = np.full(len(found.labels), -1)
    for i in range(len(matches)):
        if free.shape[1] and free[i].max() >= IOU_THRESHOLD:
            matches[i] = free[i].argmax()
            free[:, matches[i]] = 0
    return matches


def equal_number_threshold(detector: Detector, number: int) -> float:
    """Find the score at which a detector shows a number of boxes."""
    scores = [boxes.scores for boxes in detector.detections.values()]
    ordered = np.sort(np.concatenate([*scores, np.zeros(1)]))
    return float(ordered[-min(number, len(ordered))])


def choose_examples(validation: ValidationSet) -> list[Hashable]:
    """Choose images by their annotations alone, rare classes first.

    Classes are taken evenly from the rarest to the most frequent of the
    rarest group, then of the others; each is shown by the image that has
    most objects of the rarest group beside it.
    """
    statistics = validation.statistics
    by_count = np.argsort(statistics.image_count, kind='stable')
    pictures = validation.pictures
    present = {
        label for p in pictures.values() for label in p.truth.labels.tolist()
    }
    is_rare = validation.groups[0].members
    chosen: list[Hashable] = []
    for wanted, number in (
        (is_rare, NUM_RARE_EXAMPLES),
        (~is_rare, NUM_OTHER_EXAMPLES),
    ):
        labels = [c for c in by_count if wanted[c] and c in present]
        places = np.linspace(0, len(labels) - 1, min(number, len(labels)))
        for place in places.astype(int):
            candidates = [
                id
                for id, picture in pictures.items()
                if labels[place] in picture.truth.labels and id not in chosen
            ]
            if candidates:
                chosen.append(
                    max(
                        candidates,
                        key=lambda id: is_rare[
                            pictures[id].truth.labels
                        ].sum(),
                    )
                )
    return chosen


# -- plots ------------------------------------------------------------------


def to_svg(figure: Figure, titles: Mapping[str, Sequence[str]]) -> Markup:
    """Turn a figure into an element of a page.

    Args:
        figure (Figure): The figure.
        titles (Mapping[str, Sequence[str]]): What hovering over each marker
            of a line shows, by the line's gid.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None})
    root = ET.fromstring(buffer.getvalue())
    for element in root.iter():  # HTML knows the names without namespaces
        element.tag = element.tag.rpartition('}')[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            element.attrib[key.rpartition('}')[2]] = value
    del root.attrib['width'], root.attrib['height']
    for metadata in root.findall('metadata'):
        root.remove(metadata)
    for group in root.iter('g'):
        # Several figures on one page would share these.
        markers = titles.get(group.attrib.pop('id', ''), ())
        for use, title in zip(group.iter('use'), markers):
            ET.SubElement(use, 'title').text = title
    return Markup(ET.tostring(root, encoding='unicode'))


def plot_groups(
    validation: ValidationSet, detectors: Sequence[Detector]
) -> Markup:
    """Draw the AP of each group as bars."""
    keys = {'all': 'AP'} | {g.name: g.key for g in validation.groups}
    figure = Figure((5.6, 3.6), layout='constrained')
    axes = figure.subplots()
    width = 0.8 / len(detectors)
    for i, detector in enumerate(detectors):
        values = [percentage(detector.metrics[key]) for key in keys.values()]
        x = np.arange(len(keys)) + (i - (len(detectors) - 1) / 2) * width
        bars = axes.bar(
            x, values, width * 0.92, color=colour(i), label=detector.name
        )
        axes.bar_label(bars, fmt='%.1f', fontsize=8, padding=2)
    axes.set_xticks(range(len(keys)), keys)
    axes.tick_params(axis='x', length=0)
    axes.set_ylabel('AP, %')
    figure.legend(loc='outside upper left', ncols=len(detectors))
    return to_svg(figure, {})


def plot_classes(
    validation: ValidationSet, detectors: Sequence[Detector]
) -> Markup:
    """Draw the AP of each class against its number of training images."""
    statistics = validation.statistics
    figure = Figure((5.6, 3.6), layout='constrained')
    axes = figure.subplots()
    titles = {}
    for i, detector in enumerate(detectors):
        gid = f'classes-{i}'
        titles[gid] = plot_points(
            axes,
            detector,
            statistics,
            'image_count',
            100 * detector.class_ap,
            'AP {:.1f} %',
            i,
            gid,
        )
        for group in validation.groups:
            counts = statistics.image_count[group.members]
            mean = percentage(detector.metrics[group.key])
            if len(counts):
                axes.plot(
                    [max(counts.min(), 1) * 0.93, counts.max() * 1.07],
                    [mean, mean],
                    color=colour(i),
                    linewidth=2.5,
                )
    axes.set_xlabel('training images with the class (image_count)')
    axes.set_ylabel('AP of the class, %')
    figure.legend(loc='outside upper left', ncols=len(detectors))
    return to_svg(figure, titles)


def plot_weights(
    validation: ValidationSet, detectors: Sequence[Detector]
) -> Markup:
    """Draw length and mean of each class's weights over its boxes."""
    figure = Figure((5.6, 5.6), layout='constrained')
    panels = figure.subplots(2, sharex=True)
    titles = {}
    for name, axes in zip(WEIGHT_MEASURES, panels):
        for i, detector in enumerate(detectors):
            if detector.class_weights is None:
                continue
            gid = f'{name}-{i}'
            titles[gid] = plot_points(
                axes,
                detector,
                validation.statistics,
                'instance_count',
                WEIGHT_MEASURES[name](detector.class_weights),
                name + ' {:.3g}',
                i,
                gid,
            )
        axes.set_ylabel(f'{name} of the row of fc_cls')
    panels[0].set_ylim(bottom=0)
    panels[1].set_xlabel('training boxes of the class (instance_count)')
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside upper left', ncols=len(detectors)
    )
    return to_svg(figure, titles)


def correlations(
    statistics: ClassStatistics, detector: Detector
) -> dict[str, float] | None:
    """Rank correlation of training boxes with measures of the weights."""
    if detector.class_weights is None:
        return None
    return {
        name: spearmanr(
            statistics.instance_count, measure(detector.class_weights)
        )[0]
        for name, measure in WEIGHT_MEASURES.items()
    }


def plot_points(
    axes: Axes,
    detector: Detector,
    statistics: ClassStatistics,
    count: str,
    values: np.ndarray,
    text: str,
    i: int,
    gid: str,
) -> list[str]:
    """Draw one point a class over a logarithmic count.

    Returns:
        list[str]: What hovering over each point shows.
    """
    counts = getattr(statistics, count)
    drawn = np.flatnonzero(np.isfinite(values))
    # A class without training data stands at 0.5, left of those with one.
    x = np.maximum(counts[drawn], 0.5)
    axes.plot(
        x,
        values[drawn],
        MARKERS[i % len(MARKERS)],
        markersize=5,
        markeredgewidth=0,
        alpha=0.65,
        label=detector.name,
        color=colour(i),
        gid=gid,
    )
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
    return [
        f'{readable(statistics.class_names[c])} ({count} {counts[c]}), '
        f'{detector.name}: {text.format(values[c])}'
        for c in drawn
    ]


def plot_answers(
    validation: ValidationSet,
    detectors: Sequence[Detector],
    answers: Sequence[np.ndarray],
) -> Markup:
    """Draw what each detector says first about the objects of a group."""
    groups = [
        g for g in range(len(validation.groups)) if answers[0][g].sum() > 0
    ]
    rows = len(groups) * (len(detectors) + 1)
    figure = Figure((5.6, 0.9 + 0.24 * rows), layout='constrained')
    axes = figure.subplots()
    ticks: dict[float, str] = {}
    for place, g in enumerate(groups):
        top = place * (len(detectors) + 1)
        axes.text(
            0, top - 0.1, validation.groups[g].name, weight='bold', va='bottom'
        )
        for i, detector in enumerate(detectors):
            y = top + i + 0.4
            ticks[y] = detector.name
            left = 0.0
            shares = 100 * answers[i][g] / answers[i][g].sum()
            for share, shade in zip(shares, ANSWERS.values()):
                axes.barh(y, share, 0.84, left, color=shade)
                left += share
            axes.text(
                1, y, f'{shares[0]:.0f} %', color='white', va='center', size=8
            ).set_visible(shares[0] > 8)
    axes.set_yticks(list(ticks), list(ticks.values()))
    axes.set_ylim(rows - 0.3, -0.9)
    axes.set_xlim(0, 100)
    axes.spines['left'].set_visible(False)
    axes.tick_params(axis='y', length=0)
    axes.set_xlabel('objects of the group, %')
    return to_svg(figure, {})


def colour(i: int) -> str:
    """Colour of the i-th detector."""
    return COLOURS[i % len(COLOURS)]


def readable(class_name: str) -> str:
    """A class name as text."""
    return class_name.replace('_', ' ')


def percentage(value: float) -> float:
    """A mean in per cent; NaN for -1, the mean over no class."""
    return float('nan') if value == -1 else 100 * value


# -- the page ---------------------------------------------------------------


def embed(path: str) -> tuple[str, int, int]:
    """Read an image for a page.

    Returns:
        tuple[str, int, int]: A data address, and the width and height that
        boxes refer to.

    Raises:
        LongTailError: If it cannot be read.
    """
    image = cv2.imread(path)
    if image is None:
        raise LongTailError(f'{path}: not an image that can be read')
    height, width = image.shape[:2]
    scale = LARGEST_PICTURE / max(height, width)
    if scale < 1:
        image = cv2.resize(
            image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA
        )
    _, content = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    code = base64.b64encode(content.tobytes()).decode()
    return f'data:image/jpeg;base64,{code}', width, height


def describe_example(
    validation: ValidationSet,
    detectors: Sequence[Detector],
    thresholds: Sequence[float],
    id: Hashable,
) -> dict:
    """Collect what the page shows of one image."""
    picture = validation.pictures[id]
    truth = picture.truth
    statistics = validation.statistics
    is_rare = validation.groups[0].members[truth.labels]
    source, width, height = embed(picture.path)

    def rectangle(kind: str, boxes: Boxes, i: int, text: str) -> dict:
        name = readable(statistics.class_names[boxes.labels[i]])
        return dict(kind=kind, box=boxes.boxes[i], title=f'{name}{text}')

    panels = []
    for detector, threshold in zip(detectors, thresholds):
        shown = detector.detections.get(id, NO_BOXES).best(threshold)
        matches = match(shown, truth)
        rectangles = [
            rectangle('missed', truth, i, ', not found')
            for i in range(len(truth.labels))
            if i not in matches
        ]
        # The best score last, on top.
        for i in reversed(range(len(matches))):
            is_counted = (
                picture.checked is None or shown.labels[i] in picture.checked
            )
            kind = 'wrong' if is_counted else 'uncounted'
            kind = 'right' if matches[i] >= 0 else kind
            text = f', score {shown.scores[i]:.2g}'
            rectangles.append(rectangle(kind, shown, i, text))
        found = np.isin(np.arange(len(is_rare)), matches)
        panels.append(
            dict(
                rectangles=rectangles,
                found=int(found.sum()),
                rare_found=int(found[is_rare].sum()),
                wrong=int((matches < 0).sum()),
            )
        )

    def names(labels: np.ndarray) -> list[str]:
        return [
            f'{readable(statistics.class_names[c])} '
            f'({statistics.image_count[c]})'
            for c in dict.fromkeys(labels.tolist())
        ]

    return dict(
        source=source,
        width=width,
        height=height,
        truth=[
            rectangle('rare' if is_rare[i] else 'object', truth, i, '')
            for i in range(len(truth.labels))
        ],
        rare_names=names(truth.labels[is_rare]),
        other_names=names(truth.labels[~is_rare]),
        is_federated=picture.checked is not None,
        num_objects=len(truth.labels),
        num_rare=int(is_rare.sum()),
        panels=panels,
    )


def build_page(
    validation: ValidationSet,
    detectors: Sequence[Detector],
    differences: Sequence[Mapping[str, Difference]],
) -> str:
    """Write the page.

    Args:
        validation (ValidationSet): What they were evaluated on.
        detectors (Sequence[Detector]): At least one; the first is what the
            others are compared with.
        differences (Sequence[Mapping[str, Difference]]): For each detector
            the difference of each AP to the first.

    Returns:
        str: HTML with everything in it.

    Raises:
        LongTailError: If an image of the validation set cannot be read.
    """
    statistics, groups = validation.statistics, validation.groups
    columns = ['AP', 'AP50', 'AP75'] + [group.key for group in groups]
    answers = [first_answers(validation, d) for d in detectors]
    thresholds = [
        equal_number_threshold(d, validation.num_objects) for d in detectors
    ]
    found = [
        count_found(validation, d, t) for d, t in zip(detectors, thresholds)
    ]
    with matplotlib.rc_context(STYLE):
        plots = dict(
            groups=plot_groups(validation, detectors),
            classes=plot_classes(validation, detectors),
            answers=plot_answers(validation, detectors, answers),
            weights=plot_weights(validation, detectors),
        )
    environment = Environment(
        loader=PackageLoader('mmdet_longtail', 'visualization'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template('report.html').render(
        validation=validation,
        statistics=statistics,
        groups=[
            dict(
                name=group.name,
                key=group.key,
                size=int(group.members.sum()),
                least=int(statistics.image_count[group.members].min()),
                most=int(statistics.image_count[group.members].max()),
                above_10=[
                    int((d.class_ap[group.members] >= 0.1).sum())
                    for d in detectors
                ],
                answers=[100 * a[g] / max(a[g].sum(), 1) for a in answers],
                num_objects=int(answers[0][g].sum()),
                found=[int(f[g]) for f in found],
            )
            for g, group in enumerate(groups)
            if group.members.any()
        ],
        detectors=detectors,
        columns=columns,
        differences=differences,
        num_draws=NUM_DRAWS,
        best={
            key: max(detectors, key=lambda d: d.metrics[key])
            for key in columns
        },
        colours=[colour(i) for i in range(len(detectors))],
        correlations=[correlations(statistics, d) for d in detectors],
        thresholds=thresholds,
        how_it_learns=HOW_IT_LEARNS,
        answer_colours=ANSWERS,
        plots=plots,
        examples=[
            describe_example(validation, detectors, thresholds, id)
            for id in choose_examples(validation)
        ],
        iou_threshold=IOU_THRESHOLD,
    )
