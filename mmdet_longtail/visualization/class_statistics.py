"""Figures of the counts of a training set, and of EQL's T(f) on them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
)
from mmdet_longtail.structures.tail_weight import (
    ExponentialTailWeight,
    GompertzTailWeight,
    ThresholdTailWeight,
)
from mmdet_longtail.visualization.figures import (
    GROUP_COLORS,
    INK,
    group_colors,
)

# lambda of LVIS v0.5 (Tan et al., Equalization Loss, CVPR 2020), to which the
# default parameters of T(f) belong.
PAPER_THRESHOLD = 1.76e-3


def bin_intervals(bin_edges: Sequence[float]) -> list[str]:
    """Return the interval of each bin as text: [0, 10), [10, 100), ..."""
    edges = ['0', *(f'{edge:g}' for edge in bin_edges), 'inf']
    return [f'[{low}, {high})' for low, high in pairwise(edges)]


def draw_counts(
    title: str,
    statistics: ClassStatistics,
    bin_edges: Sequence[float],
    frequency_threshold: float,
) -> Figure:
    """Draw the sorted counts with lambda, the frequency groups and the bins.

    Args:
        title (str): Name of the data.
        statistics (ClassStatistics): Counts of the training set.
        bin_edges (Sequence[float]): Bins by instance_count.
        frequency_threshold (float): EQL's lambda, in [0, 1].
    """
    figure = Figure(figsize=(11, 5), layout='constrained')
    figure.suptitle(
        f'{title}: {statistics.num_classes:,} classes, '
        f'{statistics.num_images:,} images, '
        f'{statistics.instance_count.sum():,} boxes',
    )
    by_image, by_instance = figure.subplots(1, 2, gridspec_kw={'wspace': 0.08})
    num_tail = statistics.is_tail(frequency_threshold).sum()
    by_image.axhline(
        frequency_threshold * statistics.num_images,
        color=INK,
        linestyle='--',
        label=f'λ = {frequency_threshold:.3g}, tail classes: {num_tail:,}',
    )
    groups = statistics.frequency_groups()
    _draw_sorted(by_image, statistics.image_count, groups)
    by_image.set_ylabel('images that contain the class')

    for edge in bin_edges:
        by_instance.axhline(edge, color=INK, linestyle=':')
    named = zip(
        statistics.bin_groups(bin_edges), bin_intervals(bin_edges), strict=True
    )
    bins = [replace(bin_, name=interval) for bin_, interval in named]
    _draw_sorted(by_instance, statistics.instance_count, bins)
    by_instance.set_ylabel('boxes of the class')
    return figure


def _draw_sorted(
    axes: Axes, counts: np.ndarray, groups: Sequence[ClassGroup]
) -> None:
    """Draw falling counts (C,); the group of the smallest is first."""
    start = 0
    colors = group_colors(groups)
    for group, color in zip(reversed(groups), reversed(colors)):
        heights = np.sort(counts[group.members])[::-1]
        axes.stairs(
            heights,
            start + np.arange(len(heights) + 1),
            fill=True,
            color=color,
            label=f'{group.name}: {len(heights):,}',
        )
        start += len(heights)
    axes.set_yscale('symlog', linthresh=1, linscale=0.3)
    axes.yaxis.set_major_formatter('{x:,.0f}')
    axes.set_xlim(0, len(counts))
    axes.set_ylim(0, 1.5 * max(counts.max(), 1))
    axes.set_xlabel('classes, most frequent first')
    _finish(axes)


def draw_tail_weight(
    title: str, statistics: ClassStatistics, frequency_threshold: float
) -> Figure:
    """Draw EQL's T(f) over image_frequency f, as the paper's Fig. 3.

    The decays have the paper's parameters, moved with lambda: at lambda they
    have the values of the paper's at its lambda, 1.76e-3. A solid line is
    T(f), a dotted one the decay without lambda. Every class is a tick in the
    color of its frequency group. The arguments are those of `draw_counts`.
    """
    figure = Figure(figsize=(8, 5), layout='constrained')
    axes = figure.subplots()
    f = statistics.image_frequency
    start = f[f > 0].min(initial=frequency_threshold or 1) / 2
    grid = np.geomspace(start, 1, 2000)
    below = grid < frequency_threshold
    moved = PAPER_THRESHOLD / (frequency_threshold or PAPER_THRESHOLD)
    decay = ExponentialTailWeight(a=ExponentialTailWeight.a * moved)
    gompertz = GompertzTailWeight(c=GompertzTailWeight.c * moved)
    decay_name = f'exponential decay, a={decay.a:.4g}, n={decay.n}'
    gompertz_name = (
        f'Gompertz decay, a={gompertz.a}, b={gompertz.b}, c={gompertz.c:.4g}'
    )
    for name, tail_weight, color in (
        ('threshold', ThresholdTailWeight(), '#222222'),
        (decay_name, decay, '#2a9d8f'),
        (gompertz_name, gompertz, '#8e5ea2'),
    ):
        curve = tail_weight(grid)
        if name != 'threshold':  # its whole curve is 1
            axes.plot(grid, curve, ':', color=color, alpha=0.7)
        axes.plot(grid[below], curve[below], color=color, label=name)
        axes.plot(grid[~below], np.zeros_like(grid[~below]), color=color)
    axes.axvline(frequency_threshold, color=INK, linestyle='--', linewidth=1)
    for level, group in enumerate(statistics.frequency_groups()):
        axes.vlines(
            np.maximum(f, start)[group.members],
            -0.07 - 0.05 * level,
            -0.03 - 0.05 * level,
            color=GROUP_COLORS[group.name],
            linewidth=0.8,
            label=f'{group.name}: {group.members.sum():,} classes',
        )
    axes.set(
        xscale='log',
        xlim=(start, 1),
        ylim=(-0.22, 1.08),
        yticks=[0, 0.25, 0.5, 0.75, 1],
        xlabel='image_frequency f of a class',
        ylabel='T(f), the share of negatives that is spared',
    )
    _finish(axes)
    figure.suptitle(
        f'{title}: λ = {frequency_threshold:.4g}, tail classes: '
        f'{statistics.is_tail(frequency_threshold).sum():,} of '
        f'{statistics.num_classes:,}, tail ratio '
        f'{100 * statistics.tail_ratio(frequency_threshold):.2f} %'
    )
    return figure


def _finish(axes: Axes) -> None:
    """Hide two spines and put the legend above the plot."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='lower center', bbox_to_anchor=(0.5, 1), ncols=2, frameon=False
    )
