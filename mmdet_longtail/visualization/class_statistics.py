"""Figures of the counts of a training set, and of EQL's T(f) on them."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.tail_weight import (
    ExponentialTailWeight,
    GompertzTailWeight,
    ThresholdTailWeight,
)
from mmdet_longtail.visualization.figures import (
    GROUP_COLORS,
    INK,
    display_name,
    finish,
    group_colors,
)

# lambda of LVIS v0.5 (Tan et al., Equalization Loss, CVPR 2020), to which the
# default parameters of T(f) belong.
PAPER_THRESHOLD = 1.76e-3


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
    for edge in bin_edges:
        by_instance.axhline(edge, color=INK, linestyle=':')
    by_image.set_ylabel('images that contain the class')
    by_instance.set_ylabel('boxes of the class')
    groups = statistics.frequency_groups()
    bins = statistics.bin_groups(bin_edges)
    for axes, counts, parts in (
        (by_image, statistics.image_count, groups),
        (by_instance, statistics.instance_count, bins),
    ):
        start = 0
        colors = group_colors(parts)
        for group, color in zip(reversed(parts), reversed(colors)):
            heights = np.sort(counts[group.members])[::-1]
            axes.stairs(
                heights,
                start + np.arange(len(heights) + 1),
                fill=True,
                color=color,
                label=f'{display_name(group.name)}: {len(heights):,}',
            )
            start += len(heights)
        axes.set_yscale('symlog', linthresh=1, linscale=0.3)
        axes.yaxis.set_major_formatter('{x:,.0f}')
        axes.set(
            xlim=(0, len(counts)),
            ylim=(0, 1.5 * max(counts.max(), 1)),
            xlabel='classes, most frequent first',
        )
        finish(axes)
    return figure


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
    moved = PAPER_THRESHOLD / (frequency_threshold or PAPER_THRESHOLD)
    exponential = ExponentialTailWeight(a=ExponentialTailWeight.a * moved)
    gompertz = GompertzTailWeight(c=GompertzTailWeight.c * moved)
    for name, tail_weight, color in (
        ('threshold', ThresholdTailWeight(), '#222222'),
        ('exponential decay', exponential, '#2a9d8f'),
        ('Gompertz decay', gompertz, '#8e5ea2'),
    ):
        settings = (f', {k}={v:.4g}' for k, v in asdict(tail_weight).items())
        curve = tail_weight(grid)
        T = np.where(grid < frequency_threshold, curve, 0)
        axes.plot(grid, curve, ':', color=color, alpha=0.7)
        axes.plot(grid, T, color=color, label=name + ''.join(settings))
    axes.axvline(frequency_threshold, color=INK, linestyle='--', linewidth=1)
    for level, group in enumerate(statistics.frequency_groups()):
        its_f = np.maximum(f, start)[group.members]
        axes.plot(
            its_f,
            np.full(len(its_f), -0.05 * (level + 1)),
            '|',
            color=GROUP_COLORS[group.name],
            label=f'{group.name}: {len(its_f):,} classes',
        )
    axes.set(
        xscale='log',
        xlim=(start, 1),
        yticks=[0, 0.25, 0.5, 0.75, 1],
        xlabel='image_frequency f of a class',
        ylabel='T(f), the share of negatives that is spared',
    )
    finish(axes)
    figure.suptitle(
        f'{title}: λ = {frequency_threshold:.4g}, tail classes: '
        f'{statistics.is_tail(frequency_threshold).sum():,} of '
        f'{statistics.num_classes:,}, tail ratio '
        f'{100 * statistics.tail_ratio(frequency_threshold):.2f} %'
    )
    return figure
