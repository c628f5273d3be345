"""Gains in AP of the methods of sweeps over a control."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.visualization.figures import DETECTOR_COLORS, finish

GROUPS = {'APr': 'rare', 'APc': 'common', 'APf': 'frequent'}

Gains = dict[str, dict[str, list[float]]]
"""Method -> key of `GROUPS` -> one gain in points of AP per seed."""


def read_gains(path: str | Path, control: str) -> Gains:
    """Read the gains of each method from the table of a sweep.

    A method is named after its config, without what all configs of the sweep
    begin and end with, and after the settings that a config has in several
    values.

    Args:
        path (str | Path): ``ablation.csv`` of `tools/ablate.py`.
        control (str): The method to compare with, per random seed.

    Raises:
        LongTailError: If the file is no such table, or has no such method.
    """
    try:
        with open(path, encoding='utf-8', newline='') as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise LongTailError(f'{path}: {error.strerror}') from None
    columns = list(rows[0]) if rows else []
    keys = {
        group: [name for name in columns if name.endswith(f'bbox_{group}')]
        for group in GROUPS
    }
    check(
        {'config', 'seed'} <= {*columns} and all(keys.values()),
        f'{path}: expected the columns config, seed and those of APr, APc '
        'and APf, as in the ablation.csv of tools/ablate.py',
    )
    configs = {row['config'] for row in rows}
    settings = [
        key
        for key in columns[1 : columns.index('seed')]
        if len({(row['config'], row[key]) for row in rows}) > len(configs)
    ]
    stems = [Path(row['config']).stem.split('_') for row in rows]
    start = _num_shared(stems)
    end = _num_shared([stem[::-1] for stem in stems])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row, stem in zip(rows, stems):
        name = '_'.join(stem[start : len(stem) - end]) or '_'.join(stem)
        name = ' '.join([name, *filter(None, (row[k] for k in settings))])
        found.setdefault(name, {})[row['seed']] = {
            group: 100 * float(row[key]) for group, [key] in keys.items()
        }
    check(
        control in found,
        f'{path}: has no method {control!r}, but {", ".join(found)}',
    )
    return {
        name: {
            group: [
                values[group] - found[control][seed][group]
                for seed, values in by_seed.items()
                if seed in found[control]
            ]
            for group in GROUPS
        }
        for name, by_seed in found.items()
        if name != control
    }


def _num_shared(stems: Sequence[Sequence[str]]) -> int:
    """Count the parts that all begin with."""
    shared = itertools.takewhile(lambda p: len({*p}) == 1, zip(*stems))
    return len([*shared])


def plot_gains(datasets: Mapping[str, Gains], control: str) -> Figure:
    """Plot the gains, one panel per frequency group and a row per method.

    A small dot is a random seed, a large one the mean over the seeds.

    Args:
        datasets (Mapping[str, Gains]): By name, drawn in one color each.
        control (str): The method that the gains are over.
    """
    methods = list(dict.fromkeys(m for its in datasets.values() for m in its))
    size = 10, 1.3 + 0.28 * len(methods)
    figure = Figure(size, layout='constrained')
    panels = figure.subplots(1, len(GROUPS), sharey=True)
    for axes, (group, label) in zip(panels, GROUPS.items()):
        axes.axvline(0, color='0.7', linewidth=1, zorder=0)
        axes.grid(axis='y', alpha=0.2)
        for i, (name, gains) in enumerate(datasets.items()):
            color = DETECTOR_COLORS[1:][i % 5]
            shift = 0.2 * (i - (len(datasets) - 1) / 2)
            seeds = [
                (value, methods.index(method) + shift)
                for method, its in gains.items()
                for value in its[group]
            ]
            means = [
                (np.mean(its[group]), methods.index(method) + shift)
                for method, its in gains.items()
                if its[group]
            ]
            axes.plot(*zip(*seeds), '.', color=color, alpha=0.4)
            axes.plot(*zip(*means), 'o', color=color, label=name)
        axes.set_title(label, y=1.08 if len(datasets) > 1 else None)
        axes.set_xlabel(f'points of {group} over {control}')
        axes.spines[['top', 'right']].set_visible(False)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    if len(datasets) > 1:
        finish(panels[0], len(datasets))
    return figure
