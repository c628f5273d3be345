"""Options, measurements and output that benchmarks share."""

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.tables import make_table


def benchmark_parser(
    docstring: str | None, **numbers: tuple[int, str]
) -> argparse.ArgumentParser:
    """Create the parser of a benchmark.

    Args:
        docstring (str): Docstring of the tool.
        **numbers (tuple): Default and help of options that are an integer.
    """
    parser = command_parser(docstring)
    for name, (default, text) in numbers.items():
        parser.add_argument(
            '--' + name.replace('_', '-'),
            type=int,
            default=default,
            help=f'{text} (default: %(default)s)',
        )
    parser.add_argument('--json', type=Path, help='write the figures here')
    return parser


def seconds_in_turn(
    subjects: Mapping[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time functions in turn, so that a slow moment affects all of them.

    Args:
        subjects (Mapping[str, Callable]): Functions to call.
        repeats (int): Number of calls per function.
        clock (Callable): Clock in seconds. Defaults to the processor time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    rounds = track(range(repeats), 'measuring', console=Console(stderr=True))
    for _ in rounds:
        for name, function in subjects.items():
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return seconds


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of a module in a process that imports the module."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def memory(key: str) -> int:
    """Return a figure of this process in bytes, such as VmHWM, the peak."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{key}:'):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def long_tailed_statistics(num_classes: int) -> ClassStatistics:
    """Return counts that fall from 30,000 to 1, as LVIS v1's do."""
    count = np.geomspace(30_000, 1, num_classes).astype(np.int64)
    names = tuple(map(str, range(num_classes)))
    return ClassStatistics(names, count, count, 100_000, 30_000)


def show(
    title: str,
    rows: Sequence[Mapping[str, object]],
    figures: object,
    path: Path | None,
) -> None:
    """Print rows of cells by column, and write the figures behind them."""
    table = make_table(list(rows[0]), [[*row.values()] for row in rows], title)
    table_console().print(table)
    if path is not None:
        write_atomic(path, json.dumps(figures, indent=1) + '\n')
