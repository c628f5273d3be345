"""Counts of a training set as a table and figures, without torch and mmdet."""

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_longtail.structures.annotation_faults import find_annotation_faults
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
)
from mmdet_longtail.structures.class_statistics import (
    MAX_IMAGE_COUNTS,
    ClassStatistics,
    check_bin_edges,
)
from mmdet_longtail.structures.findings import warn_about
from mmdet_longtail.structures.imbalance import (
    explain_balance,
    gini,
    imbalance,
    ratio_text,
)
from mmdet_longtail.structures.suggestions import (
    DECADES,
    Suggestion,
    checked_share,
    suggest_method,
    suggest_settings,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import list_names
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.utils.tables import make_table, table_text
from mmdet_longtail.visualization.class_statistics import (
    draw_counts,
    draw_tail_weight,
)
from mmdet_longtail.visualization.figures import display_name, figure_bytes

# Name, classes, most : fewest boxes, Gini coefficient, rare classes.
# VOC: table 1 of host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc.
# COCO: as Detectron2 prints it, without crowds (its issue 1134).
# LVIS: the counts in its training files.
PUBLIC_DATASETS = (
    ('VOC2012 trainval', 20, 15.9, 0.43, 0),
    ('COCO train2017', 80, 1299.3, 0.56, 0),
    ('LVIS v0.5 train', 1230, 26148.0, 0.83, 454),
    ('LVIS v1 train', 1203, 50552.0, 0.82, 337),
)
INDENT: dict[str, Any] = {
    'initial_indent': ' ' * 4,
    'subsequent_indent': ' ' * 4,
}


def show_class_statistics(
    path: str | Path,
    *,
    bin_edges: Sequence[float] | None = None,
    frequency_threshold: float | None = None,
    out: str | Path | None = None,
    counts_figure: str | Path | None = None,
    tail_weight_figure: str | Path | None = None,
) -> None:
    """Print the counts, whether they are long-tailed, and suggestions.

    Args:
        path (str | Path): COCO or LVIS annotations, or counts that
            `ClassStatistics.save` wrote.
        bin_edges (Sequence[float], optional): Bins by instance_count.
            Defaults to the suggested ones, if there are any.
        frequency_threshold (float, optional): EQL's lambda, in [0, 1].
            Defaults to the suggested one, if there is one.
        out (str | Path, optional): JSON file to write the counts to.
        counts_figure (str | Path, optional): Picture of the sorted counts to
            write, in the format of its suffix.
        tail_weight_figure (str | Path, optional): Picture of EQL's T(f) to
            write.

    Raises:
        LongTailError: If a file cannot be read or written, or a setting is
            out of its range.
    """
    if bin_edges is not None:
        check_bin_edges(bin_edges)
    if frequency_threshold is not None:
        check_numbers('', '[0, 1]', frequency_threshold=frequency_threshold)
    annotations, share = None, 1.0
    content = read_json(path)
    if isinstance(content, dict) and 'format' in content:
        statistics = ClassStatistics.load(path)
    else:
        annotations = parse_annotations(content, str(path))
        statistics = ClassStatistics.from_annotations(annotations)
        share = checked_share(content, annotations)
        warn_about(find_annotation_faults(content, str(path)))
    settings = suggest_settings(statistics, annotations, share)
    threshold = frequency_threshold
    if threshold is None:
        threshold = settings['frequency_threshold'].value
    edges = bin_edges or settings['bin_edges'].value or DECADES
    rows = [*_rows(statistics, annotations, edges, threshold)]
    title = Path(path).name
    pictures: dict[str | Path, bytes] = {}
    if counts_figure:
        figure = draw_counts(title, statistics, edges, threshold or 0.0)
        pictures[counts_figure] = figure_bytes(figure, counts_figure)
    if tail_weight_figure:
        figure = draw_tail_weight(title, statistics, threshold or 0.0)
        pictures[tail_weight_figure] = figure_bytes(figure, tail_weight_figure)

    print(path)
    for name, value in rows:
        print(f'  {name:<32} {value:>12}')
    print(f'\n{explain_balance(statistics)}')
    print(f'  {rare_classes(statistics)}')
    print(f'\npublished datasets for comparison\n{_compare(statistics)}\n')
    _print_suggestions(settings)
    if annotations is not None:
        method, reason = suggest_method(settings, share)
        print(f'\nmethod (docs/choosing.md)\n  {method}')
        print(textwrap.fill(reason, 79, **INDENT))
        print(f'\nnext\n  {_next_command(Path(path), method, settings)}')
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
    frequency_threshold: float | None,
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
    if frequency_threshold is None:
        return
    num_tail = statistics.is_tail(frequency_threshold).sum()
    yield f'tail classes, below {frequency_threshold:.4g}', f'{num_tail:,}'
    tail_ratio = statistics.tail_ratio(frequency_threshold)
    yield 'tail ratio', f'{100 * tail_ratio:.2f} %'


def rare_classes(statistics: ClassStatistics) -> str:
    """Name the rare classes, or else the rarest one, in a sentence."""
    counts = statistics.image_count
    names = statistics.class_names
    num_rare = np.count_nonzero(counts <= MAX_IMAGE_COUNTS[0])
    order = np.argsort(counts, kind='stable')
    if not num_rare:
        rarest = order[0]
        return (
            f'no class is in {MAX_IMAGE_COUNTS[0]} images or fewer; the '
            f'rarest, {list_names([names[rarest]])}, is in '
            f'{counts[rarest]:,}'
        )
    named = list_names([names[c] for c in order[:num_rare]])
    return f'rare, in 0 to {MAX_IMAGE_COUNTS[0]} images: {named}'


def _compare(statistics: ClassStatistics) -> str:
    """Return a table of the imbalance beside that of public datasets."""
    groups = statistics.frequency_group()
    own = (
        'this data',
        statistics.num_classes,
        imbalance(statistics.instance_count),
        gini(statistics.instance_count),
        groups.count('rare'),
    )
    headings = ('', 'classes', 'most : fewest boxes', 'Gini', 'rare classes')
    rows = [
        (name, f'{size:,}', ratio_text(ratio), f'{G:.2f}', f'{rare:,}')
        for name, size, ratio, G, rare in (own, *PUBLIC_DATASETS)
    ]
    lines = table_text(make_table(headings, rows)).splitlines()
    return '\n'.join(line.rstrip() for line in lines if line.strip())


def _print_suggestions(settings: Mapping[str, Suggestion]) -> None:
    """Print the settings with their reasons."""
    if all(suggestion.value is None for suggestion in settings.values()):
        print('no setting is suggested: plain mmdet suits such data')
        return
    print('suggested for this data')
    for key, (value, reason) in settings.items():
        print(f'  no {key}' if value is None else f'  {key} = {value}')
        print(textwrap.fill(reason, 79, **INDENT))


def _next_command(
    path: Path, method: str, settings: Mapping[str, Suggestion]
) -> str:
    """Return the command that writes a config with the settings."""
    root = path.parent
    if root.name == 'annotations':
        root = root.parent
    val = path.with_name(path.name.replace('train', 'val'))
    if val == path or not val.is_file():
        val = path.with_name('VAL.json')
    files = (
        f'--{name} {shlex.quote(str(file.relative_to(root)))}'
        for name, file in (('train', path), ('val', val))
    )
    rfs = ' --rfs' if settings['oversample_thr'].value is not None else ''
    return (
        f'longtail make-config {shlex.quote(str(root))} '
        f'{" ".join(files)} --method {method}{rfs}'
    )
