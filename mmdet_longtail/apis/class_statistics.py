"""Counts of a training set as a table and figures, without torch and mmdet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmdet_longtail.structures.annotation_faults import find_dropped_boxes
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.findings import warn_about
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.visualization.class_statistics import (
    draw_counts,
    draw_tail_weight,
)
from mmdet_longtail.visualization.figures import display_name, figure_bytes


def show_class_statistics(
    path: str | Path,
    *,
    bin_edges: Sequence[float] | None = None,
    frequency_threshold: float | None = None,
    out: str | Path | None = None,
    counts_figure: str | Path | None = None,
    tail_weight_figure: str | Path | None = None,
) -> None:
    """Print a table of the counts and the suggested settings.

    Args:
        path (str | Path): COCO or LVIS annotations, or counts that
            `ClassStatistics.save` wrote.
        bin_edges (Sequence[float], optional): Bins by instance_count.
            Defaults to the suggested ones.
        frequency_threshold (float, optional): EQL's lambda, in [0, 1].
            Defaults to the suggested one.
        out (str | Path, optional): JSON file to write the counts to.
        counts_figure (str | Path, optional): Picture of the sorted counts to
            write, in the format of its suffix.
        tail_weight_figure (str | Path, optional): Picture of EQL's T(f) to
            write.

    Raises:
        LongTailError: If a file cannot be read or written, or a setting is
            out of its range.
    """
    annotations = None
    content = read_json(path)
    if isinstance(content, dict) and 'format' in content:
        statistics = ClassStatistics.load(path)
    else:
        annotations = parse_annotations(content, str(path))
        statistics = ClassStatistics.from_annotations(annotations)
        warn_about(find_dropped_boxes(annotations))
    settings = suggest_settings(statistics, annotations)
    threshold = frequency_threshold
    if threshold is None:
        threshold = settings['frequency_threshold'].value
    edges = bin_edges or settings['bin_edges'].value
    rows = [*_rows(statistics, annotations, edges, threshold)]
    title = Path(path).name
    pictures: dict[str | Path, bytes] = {}
    if counts_figure:
        figure = draw_counts(title, statistics, edges, threshold)
        pictures[counts_figure] = figure_bytes(figure, counts_figure)
    if tail_weight_figure:
        figure = draw_tail_weight(title, statistics, threshold)
        pictures[tail_weight_figure] = figure_bytes(figure, tail_weight_figure)

    print(path)
    for name, value in rows:
        print(f'  {name:<32} {value:>12}')
    print('\nsuggested for this data')
    for key, (value, reason) in settings.items():
        print(f'  {key} = {value}\n    {reason}')
    if annotations is None:
        print('  oversample_thr')
        print('    needs the annotation file, not only its counts')
    if out:
        statistics.save(out)
        print(f'\ncounts: {out}')
    for file, picture in pictures.items():
        write_atomic(file, picture)
        print(f'plot: {file}')


def _rows(
    statistics: ClassStatistics,
    annotations: Annotations | None,
    bin_edges: Sequence[float],
    frequency_threshold: float,
) -> Iterator[tuple[str, str]]:
    """Yield the rows of the table."""
    counts = statistics.instance_count
    present = counts[counts > 0]
    rare, common, frequent = (
        f'{group.members.sum():,}' for group in statistics.frequency_groups()
    )
    yield 'images', f'{statistics.num_images:,}'
    yield 'annotated images', f'{statistics.num_annotated_images:,}'
    yield 'boxes', f'{counts.sum():,}'
    if annotations is not None:
        yield 'boxes that do not train', f'{annotations.dropped.sum():,}'
    yield 'classes', f'{statistics.num_classes:,}'
    yield 'classes without a box', f'{(counts == 0).sum():,}'
    yield 'rare classes, 0-10 images', rare
    yield 'common classes, 11-100 images', common
    yield 'frequent classes, over 100', frequent
    if present.size:
        ratio = present.max() / present.min()
        yield 'imbalance, most : fewest boxes', f'{ratio:,.6g}'
        yield 'Gini coefficient of the boxes', f'{gini(counts):.3f}'
    for bin_ in statistics.bin_groups(bin_edges):
        name = display_name(bin_.name)
        yield f'classes, boxes {name}', f'{bin_.members.sum():,}'
    num_tail = statistics.is_tail(frequency_threshold).sum()
    yield f'tail classes, below {frequency_threshold:.4g}', f'{num_tail:,}'
    tail_ratio = statistics.tail_ratio(frequency_threshold)
    yield 'tail ratio', f'{100 * tail_ratio:.2f} %'


def gini(counts: np.ndarray) -> float:
    """Compute the Gini coefficient: 0 all equal, towards 1 all in one class.

    G = sum over i of (2 i - C - 1) x_i / (C * sum of x), x rising, i = 1..C.

    Args:
        counts (np.ndarray): Counts (C,), not all 0.
    """
    x = np.sort(counts)
    C = len(x)
    i = np.arange(1, C + 1)
    return float(((2 * i - C - 1) * x).sum() / (C * x.sum()))
