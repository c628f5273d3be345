r"""Compare detections that are in files, on the same validation set.

    python tools/analysis_tools/compare.py softmax.bbox.json bags.bbox.json --ann val.json \
        --train train.json --plot classes.png

Takes COCO results, such as tools/test.py --out writes. The first is what the
others are compared with: images are drawn with replacement, the same ones
for all, and a difference whose interval leaves out 0 is marked with *.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.result_files import (
    add_bootstrap_options,
    add_validation_options,
    check_outputs,
    read_validation_set,
    with_prefix,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    Detections,
    Difference,
    Evaluation,
    EvaluationSpec,
    Interval,
    bootstrap_means,
    differences,
    evaluate,
    intervals,
    mean,
)
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric
from mmdet_longtail.utils.console import progress_console, table_console
from mmdet_longtail.utils.fileio import figure_bytes, write_atomic
from mmdet_longtail.visualization.colors import GROUP_COLORS


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('first', metavar='RESULTS.json')
    parser.add_argument('others', nargs='+', metavar='RESULTS.json')
    add_validation_options(parser)
    parser.add_argument(
        '--names', nargs='+', help='what they are called (default: the files)'
    )
    add_bootstrap_options(parser, default=200)
    parser.add_argument('--json', metavar='OUT', help='write all figures')
    parser.add_argument(
        '--plot',
        metavar='PNG',
        help='draw the AP of each class against that of the first',
    )
    return parser.parse_args()


def name_results(
    paths: Sequence[str], names: Sequence[str] | None
) -> list[str]:
    """Give each result file a name, the shortest that tells them apart.

    Raises:
        LongTailError: If there are more or fewer names than files, or two
            alike.
    """
    if names is None:
        stems = [Path(path).name.partition('.')[0] for path in paths]
        numbered = [f'{n} {stem}' for n, stem in enumerate(stems, 1)]
        return next(
            found
            for found in (stems, list(paths), numbered)
            if len(set(found)) == len(found)
        )
    if len(names) != len(paths):
        raise LongTailError(
            f'--names: expected {len(paths)} names, one a result file, found '
            f'{len(names)}'
        )
    if len(set(names)) < len(names):
        raise LongTailError('--names: two are alike; give each its own')
    return list(names)


# -- what is shown ---------------------------------------------------------


def print_means(
    evaluations: dict[str, Evaluation], found: Sequence[dict[str, Interval]]
) -> None:
    """Print every mean of every detector with its interval."""
    table = Table(box=box.SIMPLE)
    table.add_column('mean')
    table.add_column('classes', justify='right')
    for name in evaluations:
        table.add_column(name)
    [first, *_] = evaluations.values()
    behind = [e.per_class_values() for e in evaluations.values()]
    for key in ('AP', *(group.key for group in first.groups)):
        cells = [
            f'{mean(b[key]):.4f} ({i[key][0]:.4f} to {i[key][1]:.4f})'
            if key in i
            else '-'
            for b, i in zip(behind, found, strict=True)
        ]
        number = np.isfinite(behind[0][key]).sum()
        table.add_row(key, str(number), *cells)
    table_console().print(table)


def print_differences(
    names: Sequence[str], compared: Sequence[dict[str, Difference]]
) -> None:
    """Print the differences to the first, and mark those that are clear."""
    first, *others = names
    table = Table(title=f'difference to {first}', box=box.SIMPLE)
    table.add_column('mean')
    for name in others:
        table.add_column(name)
    for key in compared[0]:
        cells = [of_means[key] for of_means in compared[1:]]
        table.add_row(
            key,
            *(
                f'{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})'
                + (' *' if d.is_clear else '')
                for d in cells
            ),
        )
    table_console().print(table)


def draw(evaluations: dict[str, Evaluation], path: Path) -> bytes:
    """Draw a point a class, in the format that the path's suffix names.

    Raises:
        LongTailError: If matplotlib knows no such format.
    """
    first, *others = evaluations
    figure = Figure((0.6 + 4.4 * len(others), 4.8), layout='constrained')
    panels = figure.subplots(1, len(others), squeeze=False)[0]
    x = 100 * evaluations[first].class_ap['AP']
    class_ap = [e.class_ap['AP'] for e in evaluations.values()]
    limits = -2, 100 * np.fmax.reduce(np.ravel(class_ap), initial=0.1) + 2
    for panel, name in zip(panels, others, strict=True):
        y = 100 * evaluations[name].class_ap['AP']
        panel.axline((0, 0), slope=1, color='0.7', linewidth=1, zorder=0)
        for label, members, color in point_groups(evaluations[first]):
            panel.plot(
                x[members],
                y[members],
                'o',
                color=color,
                label=label,
                markeredgewidth=0,
                alpha=0.7,
            )
        panel.set_aspect('equal')
        panel.set_xlim(limits)
        panel.set_ylim(limits)
        panel.set_xlabel(f'{first}, AP of the class in %')
        panel.set_ylabel(name)
        panel.spines[['top', 'right']].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc='outside upper center', ncols=4, frameon=False
    )
    return figure_bytes(figure, path)


def point_groups(
    evaluation: Evaluation,
) -> list[tuple[str, np.ndarray, object]]:
    """Give label, members (C,) and colour of each group of points."""
    C = evaluation.spec.ground_truth.num_classes
    if not evaluation.groups:
        return [('a class', np.ones(C, bool), GROUP_COLORS['frequent'])]
    groups = [g for g in evaluation.groups if '+' not in g.name]
    shades = colormaps['viridis'](np.linspace(0.85, 0.15, len(groups)))
    return [
        (group.name, group.members, GROUP_COLORS.get(group.name, shade))
        for group, shade in zip(groups, shades, strict=True)
    ]


def as_json(
    args: argparse.Namespace,
    evaluations: dict[str, Evaluation],
    found: Sequence[dict[str, Interval]],
    compared: Sequence[dict[str, Difference]],
) -> str:
    """Give all figures as JSON, metrics under the names of the evaluator."""
    prefix = FrequencyGroupMetric.default_prefix

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return with_prefix(prefix, args.iou_type, values)

    content = {
        'annotations': args.ann,
        'bootstrap': {
            'repeats': args.bootstrap,
            'seed': args.seed,
            'confidence': args.confidence,
        },
        'detectors': [
            {
                'name': name,
                'results': path,
                'metrics': named(evaluation.metrics()),
                'intervals': named(of_means),
                'difference_to_first': {
                    key: asdict(d) for key, d in named(to_first).items()
                },
            }
            for (name, evaluation), path, of_means, to_first in zip(
                evaluations.items(),
                [args.first, *args.others],
                found,
                compared,
                strict=True,
            )
        ],
    }
    return json.dumps(content, indent=1) + '\n'


def main() -> None:
    """Evaluate, compare, print, and write what was asked for."""
    args = parse_args()
    paths = [args.first, *args.others]
    check_outputs(
        (args.json, args.plot),
        (*paths, args.ann, args.statistics, args.train),
    )
    names = name_results(paths, args.names)
    ground_truth, _, groups = read_validation_set(args)
    evaluations: dict[str, Evaluation] = {}
    for name, path in zip(names, paths, strict=True):
        detections = Detections.load(path, ground_truth, args.iou_type)
        if not len(detections):
            print(f'{path}: no detections, AP is 0 for every class.')
        spec = EvaluationSpec(
            ground_truth, detections, args.max_detections, args.back_end
        )
        evaluations[name] = evaluate(spec, groups)
    in_order = list(evaluations.values())
    # A format that matplotlib does not know shows before the long part.
    picture = draw(evaluations, Path(args.plot)) if args.plot else None
    means = bootstrap_means(
        in_order, args.bootstrap, args.seed, progress_console()
    )
    found = [
        intervals(evaluation, its_means, args.confidence)
        for evaluation, its_means in zip(in_order, means, strict=True)
    ]
    compared = differences(in_order, means, args.confidence)
    print_means(evaluations, found)
    print_differences(names, compared)
    print(
        f'In brackets: {100 * args.confidence:g} % of {args.bootstrap} draws '
        f'of the {len(ground_truth.images):,} images; * leaves out 0.'
    )
    if args.json is not None:
        write_atomic(args.json, as_json(args, evaluations, found, compared))
        print(f'figures: {args.json}')
    if picture is not None:
        write_atomic(args.plot, picture)
        print(f'plot: {args.plot}')


if __name__ == '__main__':
    run(main)
