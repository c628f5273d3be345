"""Figures of the counts of a training set, and of EQL's T(f) on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.tail_weight import (
    ExponentialTailWeight,
    GompertzTailWeight,
    ThresholdTailWeight,
)
from mmdet_longtail.visualization.figures import GROUP_COLORS, INK

# lambda of LVIS v0.5 (Tan et al., Equalization Loss, CVPR 2020), to which the
# default parameters of T(f) belong.
PAPER_THRESHOLD = 1.76e-3


def bin_intervals(bin_edges: Sequence[float]) -> list[str]:
    """Return the interval of each bin as text: [0, 10), [10, 100), ...

    Args:
        bin_edges (Sequence[float]): G - 1 edges, positive and rising.
    """
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
    groups = [
        (group.name, group.members, GROUP_COLORS[group.name])
        for group in statistics.frequency_groups()
    ]
    _draw_sorted(by_image, statistics.image_count, groups)
    by_image.set_ylabel('images that contain the class')

    for edge in bin_edges:
        by_instance.axhline(edge, color=INK, linestyle=':')
    names = bin_intervals(bin_edges)
    members = [bin_.members for bin_ in statistics.bin_groups(bin_edges)]
    shades = colormaps['viridis'](np.linspace(0.85, 0.15, len(names)))
    bins = list(zip(names, members, shades, strict=True))
    _draw_sorted(by_instance, statistics.instance_count, bins)
    by_instance.set_ylabel('boxes of the class')
    return figure


def _draw_sorted(
    axes: Axes,
    counts: np.ndarray,
    parts: Sequence[tuple[str, np.ndarray, Any]],
) -> None:
    """Draw falling counts (C,), each part of the classes in its own color.

    A part is a name, a mask of its classes (C,) and a color. The part with
    the smallest counts is first.
    """
    start = 0
    for name, mask, color in reversed(parts):
        heights = np.sort(counts[mask])[::-1]
        end = start + len(heights)
        axes.stairs(
            heights,
            np.arange(start, end + 1),
            fill=True,
            color=color,
            label=f'{name}: {len(heights):,}',
        )
        start = end
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
    decay, gompertz = ExponentialTailWeight(), GompertzTailWeight()
    decay = replace(decay, a=decay.a * moved)
    gompertz = replace(gompertz, c=gompertz.c * moved)
    for name, tail_weight, color in (
        ('threshold', ThresholdTailWeight(), '#222222'),
        (
            f'exponential decay, a={decay.a:.4g}, n={decay.n}',
            decay,
            '#2a9d8f',
        ),
        (
            f'Gompertz decay, a={gompertz.a}, b={gompertz.b}, '
            f'c={gompertz.c:.4g}',
            gompertz,
            '#8e5ea2',
        ),
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
    axes.set_xscale('log')
    axes.set_xlim(start, 1)
    axes.set_ylim(-0.22, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel('image_frequency f of a class')
    axes.set_ylabel('T(f), the share of negatives that is spared')
    _finish(axes)
    figure.suptitle(
        f'{title}: λ = {frequency_threshold:.4g}, tail classes: '
        f'{statistics.is_tail(frequency_threshold).sum():,} of '
        f'{statistics.num_classes:,}, tail ratio '
        f'{100 * statistics.tail_ratio(frequency_threshold):.2f} %'
    )
    return figure


def _finish(axes: Axes) -> None:
    """Open the frame and put the legend above it."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='lower center', bbox_to_anchor=(0.5, 1), ncols=2, frameon=False
    )
