"""Pictures of what `ClassifierRecorder` measures of each class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.visualization.colors import GROUP_COLORS

Measures = Mapping[str, Mapping[str, np.ndarray]]
"""By name of the checkpoint, then of the measure: (C,)."""

TITLES = {
    'positive_rois': 'RoIs of the class',
    'gradient_positive': '|dL/dz| from RoIs of the class',
    'gradient_foreground_negative': '|dL/dz| from RoIs of other classes',
    'gradient_background_negative': '|dL/dz| from background RoIs',
    'negative_to_positive': '|dL/dz| from all negatives / from positives',
    'probability': 'mean probability of the class on its RoIs',
    'weight_norm': "length of the class's weights",
}
INK = '#333333'


def rank_correlations(
    statistics: ClassStatistics, found: Measures
) -> dict[str, float]:
    """Rank correlation of the training boxes and the weights of a class.

    Of ranks, so that it is the same for the logarithm of the number.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        found (Measures): With ``weight_norm``.

    Returns:
        dict[str, float]: Of each checkpoint, -1..1; nan where all classes
        have the same.
    """
    return {
        name: float(
            spearmanr(statistics.instance_count, measures['weight_norm'])[0]
        )
        for name, measures in found.items()
    }


def draw(measure: str, statistics: ClassStatistics, found: Measures) -> Figure:
    """Draw a measure of all checkpoints, a point a class.

    Args:
        measure (str): A key of `TITLES`. ``weight_norm`` is drawn over the
            number of training boxes, as in Figure 1 of BAGS (Li et al., CVPR
            2020); others have the classes with most training images first.
        statistics (ClassStatistics): Counts of the training set.
        found (Measures): The measures of each checkpoint.
    """
    figure = Figure(figsize=(9, 4.5), layout='constrained')
    axes = figure.subplots()
    if measure == 'weight_norm':
        _draw_weight_norm(axes, statistics, found)
    else:
        _draw_by_rank(axes, measure, statistics, found)
    axes.set_ylabel(TITLES[measure])
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='lower center',
        bbox_to_anchor=(0.5, 1),
        ncols=min(len(found), 3),
        frameon=False,
    )
    return figure


def running_median(values: np.ndarray) -> np.ndarray:
    """Median of about a fifteenth of the classes around each, (C,)."""
    reach = max(len(values) // 30, 1)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    medians = np.full(len(values), np.nan)
    is_known = ~np.isnan(windows).all(1)
    medians[is_known] = np.nanmedian(windows[is_known], axis=1)
    return medians


def _draw_points(
    axes: Axes, x: np.ndarray, values: Mapping[str, np.ndarray]
) -> None:
    """Draw the points of each checkpoint, and a line through them."""
    colors = colormaps['Dark2']
    for index, (name, heights) in enumerate(values.items()):
        own = colors(index % colors.N)
        axes.plot(x, heights, '.', color=own, alpha=0.4, markersize=5)
        axes.plot(
            x, running_median(heights), color=own, linewidth=2, label=name
        )


def _draw_weight_norm(
    axes: Axes, statistics: ClassStatistics, found: Measures
) -> None:
    order = np.argsort(statistics.instance_count, kind='stable')
    correlations = rank_correlations(statistics, found)
    values = {
        f'{name} (rank correlation {correlations[name]:.2f})': each[
            'weight_norm'
        ][order]
        for name, each in found.items()
    }
    # A class without training boxes stands at 0.5, left of those with one.
    _draw_points(
        axes, np.maximum(statistics.instance_count[order], 0.5), values
    )
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_ylim(0, 1.15 * max(map(np.max, values.values())))
    axes.set_xlabel('training boxes of the class; lines: running median')


def _draw_by_rank(
    axes: Axes, measure: str, statistics: ClassStatistics, found: Measures
) -> None:
    order = np.argsort(-statistics.image_count, kind='stable')
    values = {name: each[measure][order] for name, each in found.items()}
    _draw_points(axes, np.arange(len(order)) + 0.5, values)
    known = np.concatenate(list(values.values()))
    known = known[~np.isnan(known)]
    if measure == 'probability':
        axes.set_ylim(0, 1.08)
    elif (known > 0).any():
        lowest = known[known > 0].min()
        if lowest == known.min():
            axes.set_yscale('log')
            axes.set_ylim(lowest / 2, 3 * known.max())
        else:  # Zero has a place too: where EQL takes a gradient away.
            axes.set_yscale('symlog', linthresh=lowest)
            axes.set_ylim(0, 3 * known.max())
    if measure == 'negative_to_positive':
        axes.axhline(1, color=INK, linestyle='--', linewidth=1)
    strip = axes.get_xaxis_transform()
    for group in statistics.frequency_groups():
        color = GROUP_COLORS[group.name]
        places = np.flatnonzero(group.members[order])
        if len(places) == 0:
            continue
        start, end = places[0], places[-1] + 1
        axes.axvspan(start, end, 0.985, 1, color=color, linewidth=0)
        axes.axvline(start, color=INK, linewidth=0.8, alpha=0.4)
        axes.text(
            (start + end) / 2,
            0.965,
            f'{group.name}: {len(places):,}',
            color=color,
            transform=strip,
            ha='center',
            va='top',
            fontweight='bold',
        )
    axes.set_xlim(0, len(order))
    axes.set_xlabel(
        'classes, most training images first; lines: running median'
    )
