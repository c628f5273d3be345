"""Count the classes of a COCO or LVIS file and suggest settings for it.

Prints a table and the suggestions, each with its rule. Needs numpy only, and
matplotlib for ``--plot``::

    python tools/class_statistics.py train.json --out stats.json --plot p.png

The JSON is what ``ClassStatisticsHook(class_statistics=...)`` takes; it can
be given to this tool in place of the annotations, too.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_longtail.cli.main import run
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.suggestions import (
    explain_bin_edges,
    explain_frequency_threshold,
    explain_oversample_thr,
    suggest_bin_edges,
    suggest_frequency_threshold,
    suggest_oversample_thr,
)
from mmdet_longtail.structures.tail_weight import (
    ExponentialTailWeight,
    GompertzTailWeight,
    ThresholdTailWeight,
)
from mmdet_longtail.utils.fileio import (
    figure_bytes,
    read_json,
    write_atomic,
)
from mmdet_longtail.visualization.colors import GROUP_COLORS

INK = '#333333'
# Tan et al., Equalization Loss, CVPR 2020: lambda.
PAPER_THRESHOLD = 1.76e-3


def main() -> None:
    """Count, print, and write what was asked for."""
    args = parse_args()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', UserWarning)
        count(args)
    for warning in caught:
        print(f'warning: {warning.message}', file=sys.stderr)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description='Count the classes of a COCO or LVIS file and suggest '
        'settings for it.'
    )
    parser.add_argument(
        'annotations',
        type=Path,
        help='COCO or LVIS JSON, or a JSON that --out wrote',
    )
    parser.add_argument('--out', type=Path, help='write the counts as JSON')
    parser.add_argument(
        '--plot', type=Path, help='draw the sorted counts (png, svg or pdf)'
    )
    parser.add_argument(
        '--eql',
        type=Path,
        metavar='PICTURE',
        help="draw EQL's weight terms with the classes of this data on them",
    )
    parser.add_argument(
        '--bin-edges',
        type=float,
        nargs='+',
        metavar='EDGE',
        help='bins by instance_count (default: the suggested ones)',
    )
    parser.add_argument(
        '--frequency-threshold',
        type=float,
        metavar='LAMBDA',
        help='tail is image_frequency below it (default: the suggested one)',
    )
    return parser.parse_args()


def count(args: argparse.Namespace) -> None:
    """Do what the command line says."""
    for path in filter(None, (args.out, args.plot, args.eql)):
        if path.resolve() == args.annotations.resolve():
            raise LongTailError(
                f'{path}: this is the file to count; write to another one'
            )
    annotations, statistics = read(args.annotations)
    threshold = args.frequency_threshold
    if threshold is None:
        threshold = suggest_frequency_threshold(statistics)
    edges = args.bin_edges or suggest_bin_edges(statistics)

    lines = [
        str(args.annotations),
        *align(describe(statistics, annotations, edges, threshold)),
        '',
        'suggested for this data',
        *suggest(statistics, annotations),
    ]
    pictures = {}
    title = args.annotations.name
    if args.plot:
        pictures[args.plot] = draw(
            title, statistics, edges, threshold, args.plot
        )
    if args.eql:
        pictures[args.eql] = draw_tail_weights(
            title, statistics, threshold, args.eql
        )
    print('\n'.join(lines))
    if args.out:
        statistics.save(args.out)
        print(f'\ncounts: {args.out}')
    for path, picture in pictures.items():
        write_atomic(path, picture)
        print(f'plot: {path}')


def read(path: Path) -> tuple[Annotations | None, ClassStatistics]:
    """Read annotations, or the counts that this tool wrote."""
    content = read_json(path)
    if isinstance(content, dict) and 'format' in content:
        return None, ClassStatistics.load(path)
    annotations = parse_annotations(content, str(path))
    return annotations, ClassStatistics.from_annotations(annotations)


def describe(
    statistics: ClassStatistics,
    annotations: Annotations | None,
    bin_edges: Sequence[float],
    frequency_threshold: float,
) -> Iterator[tuple[str, str]]:
    """Give the rows of the table."""
    counts = statistics.instance_count
    present = counts[counts > 0]
    tail_ratio = statistics.tail_ratio(frequency_threshold)
    tail = statistics.is_tail(frequency_threshold)
    rare, common, frequent = (
        group.members.sum() for group in statistics.frequency_groups()
    )
    bins = np.bincount(
        statistics.bin_index(bin_edges), minlength=len(bin_edges) + 1
    )
    yield 'images', f'{statistics.num_images:,}'
    yield 'annotated images', f'{statistics.num_annotated_images:,}'
    yield 'boxes', f'{counts.sum():,}'
    if annotations is not None:
        yield 'boxes of no size', f'{annotations.degenerate.sum():,}'
    yield 'classes', f'{statistics.num_classes:,}'
    yield 'classes without a box', f'{(counts == 0).sum():,}'
    yield 'rare classes, 0-10 images', f'{rare:,}'
    yield 'common classes, 11-100 images', f'{common:,}'
    yield 'frequent classes, over 100', f'{frequent:,}'
    if present.size:
        ratio = present.max() / present.min()
        yield 'imbalance, most : fewest boxes', f'{ratio:,.6g}'
        yield 'Gini coefficient of the boxes', f'{gini(counts):.3f}'
    for name, size in zip(intervals(bin_edges), bins, strict=True):
        yield f'classes with {name} boxes', f'{size:,}'
    yield f'tail classes, below {frequency_threshold:.4g}', f'{tail.sum():,}'
    yield 'tail ratio', f'{100 * tail_ratio:.2f} %'


def align(rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Set the rows of a table in two columns."""
    table = list(rows)
    width = max(len(name) for name, _ in table)
    digits = max(len(value) for _, value in table)
    for name, value in table:
        yield f'  {name:<{width}}  {value:>{digits}}'


def suggest(
    statistics: ClassStatistics, annotations: Annotations | None
) -> Iterator[str]:
    """Give each suggestion and its rule."""
    threshold = suggest_frequency_threshold(statistics)
    edges = suggest_bin_edges(statistics)
    yield f'  frequency_threshold = {threshold}'
    yield f'    {explain_frequency_threshold(statistics, threshold)}'
    yield f'  bin_edges = {edges}'
    yield f'    {explain_bin_edges(statistics, edges)}'
    if annotations is None:
        yield '  oversample_thr'
        yield '    needs the annotation file, not only its counts'
        return
    oversample_thr = suggest_oversample_thr(annotations)
    yield f'  oversample_thr = {oversample_thr}'
    yield f'    {explain_oversample_thr(annotations, oversample_thr)}'


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of the counts (C,): 0 all equal, towards 1 one class.

    G = sum over i of (2 i - C - 1) x_i / (C * sum of x), x rising, i = 1..C.
    """
    x = np.sort(counts)
    C = len(x)
    i = np.arange(1, C + 1)
    return float(((2 * i - C - 1) * x).sum() / (C * x.sum()))


def intervals(bin_edges: Sequence[float]) -> list[str]:
    """Name the bins: [0, 10), [10, 100), ..."""
    edges = ['0', *(f'{edge:g}' for edge in bin_edges), 'inf']
    return [f'[{low}, {high})' for low, high in itertools.pairwise(edges)]


def new_figure(**settings: Any) -> Any:
    """Make a figure of matplotlib, which counting does without."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise LongTailError(
            '--plot and --eql need matplotlib: pip install matplotlib'
        ) from None
    return Figure(layout='constrained', **settings)


def draw(
    title: str,
    statistics: ClassStatistics,
    bin_edges: Sequence[float],
    frequency_threshold: float,
    path: Path,
) -> bytes:
    """Draw the sorted counts, in the format that the path's suffix names."""
    figure = new_figure(figsize=(11, 5))
    figure.suptitle(
        f'{title}: {statistics.num_classes:,} classes, '
        f'{statistics.num_images:,} images, '
        f'{statistics.instance_count.sum():,} boxes',
    )
    from matplotlib import colormaps

    by_image, by_instance = figure.subplots(1, 2, gridspec_kw={'wspace': 0.08})

    tail = statistics.is_tail(frequency_threshold)
    by_image.axhline(
        frequency_threshold * statistics.num_images,
        color=INK,
        linestyle='--',
        label=f'λ = {frequency_threshold:.3g}, tail classes: {tail.sum():,}',
    )
    draw_counts(
        by_image,
        statistics.image_count,
        [
            (group.name, group.members, GROUP_COLORS[group.name])
            for group in reversed(statistics.frequency_groups())
        ],
    )
    by_image.set_ylabel('images that contain the class')

    bin_index = statistics.bin_index(bin_edges)
    names = intervals(bin_edges)
    shades = colormaps['viridis'](np.linspace(0.85, 0.15, len(names)))
    for edge in bin_edges:
        by_instance.axhline(edge, color=INK, linestyle=':')
    draw_counts(
        by_instance,
        statistics.instance_count,
        [
            (names[i], bin_index == i, shades[i])
            for i in reversed(range(len(names)))
        ],
    )
    by_instance.set_ylabel('boxes of the class')

    return figure_bytes(figure, path)


def draw_tail_weights(
    title: str,
    statistics: ClassStatistics,
    frequency_threshold: float,
    path: Path,
) -> bytes:
    """Draw EQL's weight terms over image_frequency, as the paper's Fig. 3.

    The decays have the paper's parameters, moved with lambda: they have the
    values there that the paper's have at its lambda of 1.76e-3. Solid is what
    counts, below lambda; every class is a tick in the colour of its group.
    """
    figure = new_figure(figsize=(8, 5))
    axes = figure.subplots()
    f = statistics.image_frequency
    threshold = frequency_threshold
    start = min(f[f > 0].min(initial=threshold or 1), threshold or 1) / 2
    grid = np.geomspace(start, 1, 2000)
    below = grid < threshold
    moved = PAPER_THRESHOLD / threshold if threshold else 1.0
    exponential, gompertz = ExponentialTailWeight(), GompertzTailWeight()
    exponential = replace(exponential, a=exponential.a * moved)
    gompertz = replace(gompertz, c=gompertz.c * moved)
    curves: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        'threshold': ThresholdTailWeight(),
        f'exponential decay, a={exponential.a:.4g}, n={exponential.n}': (
            exponential
        ),
        f'Gompertz decay, a={gompertz.a}, b={gompertz.b}, '
        f'c={gompertz.c:.4g}': gompertz,
    }
    for (name, curve), color in zip(
        curves.items(), ('#222222', '#2a9d8f', '#8e5ea2'), strict=True
    ):
        if name != 'threshold':  # its whole curve is 1
            axes.plot(grid, curve(grid), ':', color=color, alpha=0.7)
        axes.plot(grid[below], curve(grid[below]), color=color, label=name)
        axes.plot(grid[~below], 0 * grid[~below], color=color)
    axes.axvline(threshold, color=INK, linestyle='--', linewidth=1)
    tail_ratio = statistics.tail_ratio(threshold)
    axes.set_xscale('log')
    axes.set_xlim(start, 1)
    axes.set_ylim(-0.22, 1.08)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    shown = np.maximum(f, start)
    for level, group in enumerate(statistics.frequency_groups()):
        axes.vlines(
            shown[group.members],
            -0.07 - 0.05 * level,
            -0.03 - 0.05 * level,
            color=GROUP_COLORS[group.name],
            linewidth=0.8,
            label=f'{group.name}: {group.members.sum():,} classes',
        )
    axes.set_xlabel('image_frequency f of a class')
    axes.set_ylabel('T(f), the share of negatives that is spared')
    axes.spines[['top', 'right']].set_visible(False)
    tail = statistics.is_tail(threshold).sum()
    figure.suptitle(
        f'{title}: λ = {threshold:.4g}, tail classes: {tail:,} of '
        f'{statistics.num_classes:,}, tail ratio {100 * tail_ratio:.2f} %'
    )
    axes.legend(
        loc='lower center', bbox_to_anchor=(0.5, 1), ncols=2, frameon=False
    )
    return figure_bytes(figure, path)


def draw_counts(
    axes: Any,
    counts: np.ndarray,
    parts: list[tuple[str, np.ndarray, Any]],
) -> None:
    """Draw falling counts (C,), each part of the classes in its own colour.

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        counts (np.ndarray): One count per class.
        parts (list): Name, classes as a mask (C,), and colour of each part,
            the one with the largest counts first.
    """
    start = 0
    for name, mask, color in parts:
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
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='lower center', bbox_to_anchor=(0.5, 1), ncols=2, frameon=False
    )


if __name__ == '__main__':
    run(main)
