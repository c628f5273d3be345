"""Gains in AP of the methods of a sweep over a control."""

import csv
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.utils.fileio import read_text
from mmdet_longtail.visualization.gains import GROUPS, Gains


def read_gains(path: str | Path, control: str) -> Gains:
    """Read the gains of each method from the table of a sweep.

    A method is named after its config, without what all configs of the sweep
    begin and end with, and after the settings that a config has in several
    values. Of several metrics with APr, APc and APf the first counts.

    Args:
        path (str | Path): ``ablation.csv`` of `tools/ablate.py`.
        control (str): The method to compare with, per random seed.

    Raises:
        LongTailError: If the file is no such table, or has no such method.
    """
    text = read_text(path).removeprefix('\ufeff')  # of spreadsheets
    rows = list(csv.DictReader(io.StringIO(text)))
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
        values = found.setdefault(name, {})[row['seed']] = {}
        for group, [key, *_] in keys.items():
            try:
                value = float(row[key] or -1)
            except ValueError:
                raise LongTailError(
                    f'{path}: {key} of {name} is {row[key]!r}, expected a '
                    'number'
                ) from None
            if value != -1:  # of no class
                values[group] = 100 * value
    check(
        control in found,
        f'{path}: has no method {control!r}, but {", ".join(found)}',
    )
    of_control = found[control]
    return {
        name: {
            group: [
                values[group] - of_control[seed][group]
                for seed, values in by_seed.items()
                if group in values and group in of_control.get(seed, {})
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
