"""An HTML page that compares detectors on one validation set.

The template is report.html in this folder. Plots and images are embedded.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from mmdet_longtail.evaluation.functional import (
    Difference,
    Evaluation,
    Matches,
    bootstrap_means,
    differences,
    leaders,
    match_detections,
    predicted_labels,
)
from mmdet_longtail.evaluation.functional.matching import BACKGROUND, IGNORED
from mmdet_longtail.structures.class_statistics import ClassGroup
from mmdet_longtail.utils.console import progress_console
from mmdet_longtail.visualization.detections import (
    ImageSet,
    choose_drawn,
    draw,
)
from mmdet_longtail.visualization.figures import (
    DETECTOR_COLORS,
    display_name,
    rank_correlation,
    render_page,
)

IOU_THRESHOLD = 0.5
NUM_DRAWS = 100
NUM_EXAMPLES, NUM_RARE_EXAMPLES = 8, 6
MARKERS = 'o^sDvP'
ANSWERS = (
    'the right class',
    'a class with at most as many training images',
    'a class with more training images',
    'no box on it',
)
MEASURES = {
    'AP': ('AP of the class, %', 'AP {:.1f} %'),
    'gain': ('gain of AP over the first, points', '{:+.1f} points of AP'),
    'norm': ('norm of the row of fc_cls', 'norm {:.3g}'),
    'mean': ('mean of the row of fc_cls', 'mean {:.3g}'),
}
"""Label of the axis, and format of a value."""
STYLE = {
    'axes.prop_cycle': cycler(color=DETECTOR_COLORS),
    'axes.spines.right': False,
    'axes.spines.top': False,
    'svg.fonttype': 'none',  # Text stays text, in the font of the page.
    'svg.hashsalt': 'mmdet_longtail',
}


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector and its evaluation.

    Args:
        name (str): Its name on the page.
        evaluation (Evaluation): Of the validation set that all share.
        source (str): Path of its checkpoint or result file.
        training (str): Length of the training, and the trained layers.
        explanation (str): How the classification loss treats rare classes.
        class_weights (np.ndarray, optional): (C, F) rows of the classifier.
        settings (dict): Values of its config by dotted key.
    """

    name: str
    evaluation: Evaluation
    source: str
    training: str = ''
    explanation: str = ''
    class_weights: np.ndarray | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Means in percent, NaN for a mean over no class."""
        means = self.evaluation.means().items()
        return {k: np.nan if v == -1 else 100 * v for k, v in means}

    @cached_property
    def measures(self) -> dict[str, np.ndarray]:
        """The `MEASURES` (C,) that are known."""
        measures = {'AP': 100 * self.evaluation.class_ap['AP']}
        if self.class_weights is not None:
            measures['norm'] = np.linalg.norm(self.class_weights, axis=1)
            measures['mean'] = self.class_weights.mean(axis=1)
        return measures

    @cached_property
    def predicted(self) -> np.ndarray:
        """Label of the best-scored detection on each object (m,)."""
        return predicted_labels(self.evaluation.spec, IOU_THRESHOLD)

    @property
    def num_objects(self) -> int:
        """Number of objects without crowds."""
        return int((self.predicted != IGNORED).sum())

    def objects_of(self, group: ClassGroup) -> np.ndarray:
        """Return the rows of a group's objects without crowds."""
        is_member = group.members[self.evaluation.spec.ground_truth.label]
        return np.flatnonzero(is_member & (self.predicted != IGNORED))

    @cached_property
    def score_thr(self) -> float:
        """The score that as many detections reach as there are objects."""
        scores = np.append(self.evaluation.spec.detections.score, 0)
        return float(np.sort(scores)[-min(self.num_objects, len(scores))])

    @cached_property
    def shown(self) -> Matches:
        """Matches of the detections from ``score_thr`` on."""
        spec = self.evaluation.spec
        rows = np.flatnonzero(spec.detections.score >= self.score_thr)
        spec = replace(spec, detections=spec.detections.take(rows))
        return match_detections(spec, [IOU_THRESHOLD])

    def num_found(self, group: ClassGroup) -> int:
        """Count the objects of a group that the shown detections find."""
        return int(self.shown.is_found[self.objects_of(group), 0].sum())

    def answer_shares(
        self, group: ClassGroup, image_count: np.ndarray
    ) -> np.ndarray:
        """Compute which class has the highest score on objects of a group.

        Only scores on one object are compared, so the scale of the scores
        does not matter.

        Args:
            group (ClassGroup): The classes of the objects.
            image_count (np.ndarray): Training images per class (C,).

        Returns:
            np.ndarray: (4,) percentage of the objects by answer, in the order
            of `ANSWERS`; 0 without objects.
        """
        rows = self.objects_of(group)
        predicted = self.predicted[rows]
        label = self.evaluation.spec.ground_truth.label[rows]
        is_rarer = image_count[predicted] <= image_count[label]
        cases = [predicted == label, predicted == BACKGROUND, is_rarer]
        answer = np.select(cases, [0, 3, 1], 2)
        return 100 * np.bincount(answer, minlength=4) / max(len(rows), 1)


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that the page shows.

    Args:
        detectors (Sequence[Detector]): At least one; the first is the
            reference of the differences.
        images (ImageSet): The validation set. Without counts or folder the
            page omits what depends on them.
    """

    detectors: Sequence[Detector]
    images: ImageSet

    @cached_property
    def groups(self) -> list[ClassGroup]:
        """Groups that have classes, the rarest first."""
        groups = self.detectors[0].evaluation.groups
        return [group for group in groups if group.members.any()]

    @cached_property
    def drawn(self) -> tuple[list[Evaluation], list[dict[str, np.ndarray]]]:
        """The evaluations, and their means on drawn images."""
        evaluations = [detector.evaluation for detector in self.detectors]
        console = progress_console()
        means = bootstrap_means(evaluations, NUM_DRAWS, console=console)
        return evaluations, means

    @cached_property
    def differences(self) -> list[dict[str, Difference]]:
        """Difference of each mean to the first detector, per detector."""
        return differences(*self.drawn)

    @cached_property
    def leaders(self) -> dict[str, list[Detector]]:
        """The detectors that may be the best, the highest mean first."""
        if len(self.detectors) == 1:
            return {}
        return {
            key: [self.detectors[k] for k in found]
            for key, found in leaders(*self.drawn).items()
        }

    @property
    def ranking(self) -> list[int]:
        """Positions of the detectors, the highest AP first."""
        means = [detector.metrics['AP'] for detector in self.detectors]
        return np.argsort(-np.array(means), kind='stable').tolist()

    def is_ahead(self, detector: Detector, key: str) -> bool:
        """Whether no detector has a clearly higher mean, but some a lower."""
        best = self.leaders.get(key, ())
        return detector in best and len(best) < len(self.detectors)

    @property
    def different_settings(self) -> dict[str, list[str]]:
        """Values per detector of the settings that are not all the same.

        A detector without a config has no settings, and lets none differ.
        """
        known = [d.settings for d in self.detectors if d.settings]
        keys = list(dict.fromkeys(key for its in known for key in its))
        return {
            key: [d.settings.get(key, '') for d in self.detectors]
            for key in keys
            if len({its.get(key) for its in known}) > 1
        }

    def choose_examples(self) -> list[int]:
        """Choose images of rare classes, then of other classes."""
        if self.images.folder is None:
            return []
        is_rare = self.images.is_rare
        rare = self.images.choose(is_rare, NUM_RARE_EXAMPLES)
        others = self.images.choose(~is_rare, NUM_EXAMPLES - len(rare))
        return list(dict.fromkeys(rare + others))

    def example(self, image: int) -> tuple[str, str]:
        """Draw the shown detections in an image.

        Returns:
            tuple[str, str]: The figure as a data URL, and its text.

        Raises:
            LongTailError: If the image cannot be read.
        """
        panels = [
            self.images.panel(image, d.name, d.shown, choose_drawn(d.shown, 0))
            for d in self.detectors
        ]
        picture, title = self.images.load(image), self.images.file_name(image)
        content = io.BytesIO()
        draw(picture, title, panels).savefig(content, format='jpeg')
        encoded = base64.b64encode(content.getvalue()).decode()
        text = '; '.join(panel.heading for panel in panels)
        return f'data:image/jpeg;base64,{encoded}', text

    def render(self) -> str:
        """Render the page as HTML that needs no other file.

        Raises:
            LongTailError: If an image cannot be read.
        """
        with matplotlib.rc_context(STYLE):
            plots = {}
            if len(self.detectors) > 1:
                plots['ranking'] = self.plot_ranking()
            if self.images.statistics is not None:
                shown = ('AP', 'gain')[: len(self.detectors)]
                plots['classes'] = self.plot_measures('image_count', *shown)
                if any('norm' in d.measures for d in self.detectors):
                    plots['weights'] = self.plot_measures(
                        'instance_count', 'norm', 'mean'
                    )
        return render_page(
            'report.html',
            report=self,
            means={g.name: g.key for g in self.groups[:1] + self.groups[-1:]}
            | {'all': 'AP'},
            columns=['AP', 'AP50', 'AP75', *(g.key for g in self.groups)],
            answers=ANSWERS,
            plots=plots,
            num_draws=NUM_DRAWS,
            iou_threshold=IOU_THRESHOLD,
            rank_correlation=rank_correlation,
            display_name=display_name,
        )

    def plot_ranking(self) -> Markup:
        """Plot the gains over the first detector with their intervals.

        One row per detector, the highest AP at the top; one panel for AP and
        for each group.
        """
        first, *_ = self.detectors
        names = {'AP': 'all classes'} | {g.key: g.name for g in self.groups}
        size = 1.8 + 1.9 * len(names), 1.1 + 0.35 * len(self.detectors)
        figure = Figure(size, layout='constrained')
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, (key, name) in zip(panels, names.items()):
            axes.axvline(0, color='0.7', linewidth=1)
            for row, i in enumerate(self.ranking):
                gain = self.differences[i].get(key)
                if gain is None:  # The first, or a mean over no class.
                    continue
                ends = 100 * gain.low, 100 * gain.high
                color = f'C{i}' if gain.is_clear else '0.7'
                axes.hlines(row, *ends, color=color, linewidth=2)
                axes.plot(100 * gain.value, row, 'o', color=color)
            axes.set_title(name, size='medium')
        ranked = [self.detectors[i].name for i in self.ranking]
        panels[0].set_yticks(range(len(ranked)), ranked)
        panels[0].invert_yaxis()
        figure.supxlabel(f'points of AP more than {first.name}')
        return to_svg(figure)

    def measures_of(self, detector: Detector) -> dict[str, np.ndarray]:
        """Return the `MEASURES` (C,) that are known of a detector."""
        first = self.detectors[0]
        if detector is first:
            return detector.measures
        gain = detector.measures['AP'] - first.measures['AP']
        return detector.measures | {'gain': gain}

    def plot_measures(self, count: str, *measures: str) -> Markup:
        """Plot measures per class over 'image_count' or 'instance_count'.

        A line per group is the mean of its classes.
        """
        counts = getattr(self.images.statistics, count)
        names = [display_name(n) for n in self.images.truth.class_names]
        size = (5.6, 1.6 + 2 * len(measures))
        figure = Figure(size, layout='constrained')
        panels = figure.subplots(len(measures), sharex=True, squeeze=False)
        for axes, measure in zip(panels[:, 0], measures):
            label, text = MEASURES[measure]
            axes.set(xscale='log', ylabel=label)
            for i, detector in enumerate(self.detectors):
                unknown = np.full(len(counts), np.nan)
                values = self.measures_of(detector).get(measure, unknown)
                points = axes.scatter(
                    np.maximum(counts, 0.5),  # 0 is not on the axis.
                    values,
                    25,
                    marker=MARKERS[i % len(MARKERS)],
                    linewidths=0,
                    alpha=0.65,
                    label=detector.name,
                )
                tooltips = [
                    f'{name} ({count} {number}), {detector.name}: '
                    f'{text.format(value)}'
                    for name, number, value in zip(names, counts, values)
                ]
                points.set_urls(tooltips)
                for group in self.groups if measure in ('AP', 'gain') else ():
                    its_counts = counts[group.members]
                    mean = detector.metrics[group.key]
                    if measure == 'gain':
                        mean -= self.detectors[0].metrics[group.key]
                    axes.hlines(
                        mean,
                        max(its_counts.min(), 1) * 0.93,
                        its_counts.max() * 1.07,
                        color=f'C{i}',
                        linewidth=2.5,
                    )
        axes.xaxis.set_major_formatter('{x:g}')
        axes.set_xlabel(f'{count} of the class in the training set')
        if 'norm' in measures:
            panels[0, 0].set_ylim(bottom=0)
        return to_svg(figure)


def to_svg(figure: Figure) -> Markup:
    """Add a legend to a figure and convert it to an element of a page.

    The URLs of markers become their tooltips.
    """
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if labels:
        place = dict(loc='outside upper left', ncols=len(labels))
        figure.legend(handles, labels, **place)
    buffer = io.StringIO()
    figure.savefig(buffer, format='svg', metadata={'Date': None})
    svg = buffer.getvalue().partition('</metadata>')[2]
    svg = re.sub('<a xlink:href="([^"]*)"[^>]*>', r'<g><title>\1</title>', svg)
    svg = svg.replace('</a>', '</g>').replace('xlink:href', 'href')
    # Ids must differ between the figures of a page.
    svg = re.sub('<g id="[^"]*">', '<g>', svg)
    width, height = 72 * figure.get_size_inches()
    return Markup(f'<svg viewBox="0 0 {width:g} {height:g}">{svg}')
