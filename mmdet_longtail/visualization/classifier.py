"""Plots of the measures of `ClassifierRecorder`, and of calibrations."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.visualization.figures import (
    GROUP_COLORS,
    INK,
    finish,
    rank_correlation,
)

TITLES = {
    'positive_rois': 'RoIs of the class',
    'gradient_positive': '|dL/dz| from RoIs of the class',
    'gradient_foreground_negative': '|dL/dz| from RoIs of other classes',
    'gradient_background_negative': '|dL/dz| from background RoIs',
    'negative_to_positive': '|dL/dz| from all negatives / from positives',
    'probability': 'mean probability of the class on its RoIs',
    'weight_norm': "norm of the class's weights",
}


def draw(
    measure: str,
    statistics: ClassStatistics,
    measures: Mapping[str, Mapping[str, np.ndarray]],
) -> Figure:
    """Plot a measure (C,) of all checkpoints, one point per class.

    ``weight_norm`` is plotted over the number of training boxes, as in Figure
    1 of BAGS (Li et al., CVPR 2020). Other measures of `TITLES` are plotted
    over the classes, those with most training images first.
    """
    figure = Figure(figsize=(9, 4.5), layout='constrained')
    axes = figure.subplots()
    values = {name: each[measure] for name, each in measures.items()}
    every = np.stack(list(values.values()))
    if measure == 'weight_norm':
        boxes = statistics.instance_count
        order = np.argsort(boxes, kind='stable')
        x = np.maximum(boxes[order], 0.5)  # 0 is not on the axis.
        values = {
            f'{name} (rank correlation {rank_correlation(boxes, v):.2f})': v
            for name, v in values.items()
        }
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter('{x:g}')
        axes.set_ylim(0, 1.15 * every.max())
        axes.set_xlabel('training boxes of the class; lines: running median')
    else:
        order = np.argsort(-statistics.image_count, kind='stable')
        x = np.arange(len(order)) + 0.5
        _set_limits(axes, measure, every)
        _mark_groups(axes, np.array(statistics.frequency_group())[order])
    colors = colormaps['Dark2']
    for i, (name, heights) in enumerate(values.items()):
        y, color = heights[order], colors(i % colors.N)
        axes.plot(x, y, '.', color=color, alpha=0.4, markersize=5)
        axes.plot(x, running_median(y), color=color, linewidth=2, label=name)
    axes.set_ylabel(TITLES[measure])
    finish(axes, min(len(values), 3))
    return figure


def draw_strengths(
    method: str, means: Mapping[float, np.ndarray], best: float
) -> Figure:
    """Plot AP, APr, APc and APf in percent over the strength of a method.

    Args:
        method (str): Name of the method.
        means (Mapping[float, np.ndarray]): The four APs by strength, NaN
            where there is no box.
        best (float): The strength that is taken.
    """
    figure = Figure(figsize=(6, 4.5), layout='constrained')
    axes = figure.subplots()
    curves = np.stack(list(means.values()), 1)  # (4, number of strengths)
    colors = {'all classes': INK} | GROUP_COLORS
    for (name, color), curve in zip(colors.items(), curves, strict=True):
        width = 3 if color == INK else 1.5
        axes.plot(
            [*means], curve, 'o-', color=color, linewidth=width, label=name
        )
    axes.axvline(best, color=INK, linestyle='--', linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f'strength of {method}; taken: {best:g}')
    axes.set_ylabel('AP in % on held-out training images')
    finish(axes, 4)
    return figure


def running_median(values: np.ndarray) -> np.ndarray:
    """Compute the median of about a fifteenth of the classes, (C,)."""
    reach = max(len(values) // 30, 1)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    medians = np.full(len(values), np.nan)
    is_known = ~np.isnan(windows).all(1)
    medians[is_known] = np.nanmedian(windows[is_known], axis=1)
    return medians


def _set_limits(axes: Axes, measure: str, values: np.ndarray) -> None:
    """Set a scale on which all values are visible, 0 included."""
    positive = values[values > 0]
    if measure == 'probability':
        axes.set_ylim(0, 1.08)
    elif len(positive):
        # EQL removes a gradient: 0 must be on the axis.
        axes.set_yscale('symlog', linthresh=positive.min())
        axes.set_ylim(0, 3 * positive.max())
    if measure == 'negative_to_positive':
        axes.axhline(1, color=INK, linestyle='--', linewidth=1)


def _mark_groups(axes: Axes, groups: np.ndarray) -> None:
    """Mark the frequency group of the classes at the top of a plot."""
    for group, color in GROUP_COLORS.items():
        [places] = np.nonzero(groups == group)
        if not len(places):
            continue
        start, end = places[0], places[-1] + 1
        axes.axvspan(start, end, 0.985, 1, color=color, linewidth=0)
        axes.axvline(start, color=INK, linewidth=0.8, alpha=0.4)
        axes.text(
            (start + end) / 2,
            0.965,
            f'{group}: {len(places):,}',
            color=color,
            transform=axes.get_xaxis_transform(),
            ha='center',
            va='top',
            fontweight='bold',
        )
    axes.set_xlim(0, len(groups))
    axes.set_xlabel(
        'classes, most training images first; lines: running median'
    )
