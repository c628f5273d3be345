r"""Train a grid of configs, settings and seeds, one run after the other.

    python tools/ablate.py softmax.py bags.py --seeds 0 1 2
    python tools/ablate.py bags.py --seeds 0 1 2 \
        --set model.roi_head.bbox_head.loss_cls.bin_edges '(10,100)' '(30,300)'

The same command goes on after an interruption: finished runs are kept,
unfinished ones go on from their last checkpoint. A config with `base_config`
(a second stage) starts from the last checkpoint of a run of that config with
the same seed, which is trained first. That run takes those settings whose key
the second stage inherits from it unchanged.
"""

import argparse
import ast
import csv
import hashlib
import io
import itertools
import json
import os
import re
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

try:
    from mmdet_longtail.command_line import (
        last_checkpoint,
        load_config,
        run,
    )
except ImportError as error:
    sys.exit(f'error: {error}')
from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.files import figure_bytes, write_whole
from mmdet_longtail.runs import (
    SUMMARY,
    duration,
    exclusive,
    keep_config,
    num_epochs,
    run_with_progress,
)

TRAIN = Path(__file__).resolve().with_name('train.py')
LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class Job:
    """One training of the grid.

    Args:
        config (str): Path of the config file.
        settings (tuple[tuple[str, Any], ...]): Dotted keys and their values.
        seed (int): Seed of everything random.
    """

    config: str
    settings: tuple[tuple[str, Any], ...]
    seed: int

    @property
    def method(self) -> str:
        """What is compared: the config's name and the settings."""
        leaves = [key.rpartition('.')[2] for key, _ in self.settings]
        parts = [
            f'{leaf if leaves.count(leaf) == 1 else key}={in_a_name(value)}'
            for leaf, (key, value) in zip(leaves, self.settings, strict=True)
        ]
        return '_'.join([Path(self.config).stem, *parts])

    @property
    def name(self) -> str:
        """Name of the run's directory."""
        return f'{self.method}_seed={self.seed}'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('configs', nargs='+', metavar='CONFIG')
    parser.add_argument(
        '--set',
        nargs='+',
        action='append',
        default=[],
        dest='settings',
        metavar=('KEY', 'VALUE'),
        help='a key of the config and its values, as for --cfg-options or as '
        'Python: 0.1 [10,100] "dict(type=\'EqualizationLoss\')"; each value '
        'replaces what the config has; several --set make a grid',
    )
    parser.add_argument('--seeds', nargs='+', type=int, default=[0])
    parser.add_argument(
        '--work-dir',
        default='work_dirs/ablation',
        help='gets a directory for each run, and ablation.csv and '
        'ablation.png (default: %(default)s)',
    )
    parser.add_argument(
        '--metric',
        nargs='+',
        metavar='KEY',
        help='metrics in the table and the plot, by the end of their names '
        '(default: every AP over all sizes and IoUs)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='overrides for all runs, those of a base_config too',
    )
    return parser.parse_args()


# -- the grid --------------------------------------------------------------


class _DictCalls(ast.NodeTransformer):
    """Turns dict(a=1) into {'a': 1}, as configs write it."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
        if not is_dict or node.args:
            return node
        keys: list[ast.expr | None] = [
            ast.Constant(keyword.arg) for keyword in node.keywords
        ]
        return ast.Dict(keys, [keyword.value for keyword in node.keywords])


def parse_value(text: str) -> Any:
    """Read a value as Python, else as mmengine's --cfg-options does."""
    try:
        tree = _DictCalls().visit(ast.parse(text.strip(), mode='eval'))
        return ast.literal_eval(tree)
    except (ValueError, SyntaxError):
        return DictAction._parse_iterable(text)


def in_a_name(value: Any) -> str:
    """Spell a value for the name of a directory: (10, 100) gives 10,100."""
    text = re.sub(r'[\'"\s()\[\]{}]', '', str(value)).replace(':', '-')
    text = re.sub(r'[^\w.,+-]', '-', text)
    if len(text) > LONGEST_NAME:
        digest = hashlib.sha256(str(value).encode()).hexdigest()[:8]
        text = f'{text[:LONGEST_NAME]}-{digest}'
    return text


def plan(args: argparse.Namespace) -> list[Job]:
    """Lay out the grid: every method with one seed, then with the next.

    Raises:
        LongTailError: If a --set has no value, or two runs would share a
            directory.
    """
    axes = []
    for key, *values in args.settings:
        if not values:
            raise LongTailError(f'--set {key}: no value; write KEY V1 V2 ...')
        axes.append([(key, parse_value(text)) for text in values])
    jobs = [
        Job(os.path.normpath(config), settings, seed)
        for seed in args.seeds
        for config in args.configs
        for settings in itertools.product(*axes)
    ]
    for index, job in enumerate(jobs):
        if job.name in [other.name for other in jobs[:index]]:
            raise LongTailError(
                f'two runs are called {job.name}: give each config file its '
                'own name, and each value and seed once'
            )
    return jobs


def locate(config: Config, key: str) -> tuple[Any, str | int]:
    """Find what holds a dotted key, and the last part of the key.

    Raises:
        LongTailError: If the config has nothing that could hold it. A key
            at the top level has to be there: it would else be ignored.
    """
    *path, last = [int(k) if k.isdigit() else k for k in key.split('.')]
    holder: Any = config
    try:
        for part in path:
            holder = holder[part]
        if isinstance(holder, list) or not path:
            holder[last]
    except (KeyError, IndexError, TypeError):
        holder = None
    if not isinstance(holder, Config | dict | list):
        raise LongTailError(
            f'--set {key}: {config.filename} has no such key; check its '
            'spelling'
        )
    return holder, last


def inherits(stage: Config, base: Config, key: str) -> bool:
    """Tell if a second stage has a key of its base with the same value."""
    try:
        values = [
            holder[last]
            for holder, last in (
                locate(config, key) for config in (stage, base)
            )
        ]
    except (LongTailError, KeyError):
        return False
    return values[0] == values[1]


# -- the queue -------------------------------------------------------------


class Queue:
    """Trains jobs one at a time, each at most once.

    Args:
        work_dir (Path): Where the runs go.
        cfg_options (dict | None): Overrides for all runs.
        lock (IO): Kept open by every training, see `exclusive`.
    """

    def __init__(
        self, work_dir: Path, cfg_options: dict[str, Any] | None, lock: IO
    ) -> None:
        self.work_dir = work_dir
        self.cfg_options = cfg_options
        self.lock = lock
        self.failures: dict[str, str] = {}

    def metrics(self, job: Job) -> dict[str, Any] | None:
        """Give the results of a finished run, None before."""
        path = self.work_dir / job.name / 'metrics.json'
        return json.loads(path.read_text()) if path.exists() else None

    def prepare(self, job: Job) -> tuple[Config, Job | None]:
        """Build the config of a run, and name the run that it starts from."""
        config = load_config(job.config, self.cfg_options)
        base = None
        if 'base_config' in config:
            path = Path(job.config).parent / config.base_config
            base_config = load_config(path, self.cfg_options)
            settings = tuple(
                (key, value)
                for key, value in job.settings
                if inherits(config, base_config, key)
            )
            base = Job(os.path.normpath(path), settings, job.seed)
        for key, value in job.settings:
            holder, last = locate(config, key)
            holder[last] = value
        config.randomness = dict(config.get('randomness', {}), seed=job.seed)
        return config, base

    def finish(self, job: Job) -> bool:
        """Train a run unless it is finished, and its base before it.

        Returns:
            bool: Whether the run is finished now.
        """
        if job.name in self.failures:
            return False
        try:
            config, base = self.prepare(job)
            if base is not None:
                if not self.finish(base):
                    raise LongTailError(f'its base {base.name} failed')
                folder = self.work_dir / base.name
                config.load_from = str(last_checkpoint(folder))
            path = self.work_dir / 'configs' / f'{job.name}.py'
            folder = self.work_dir / job.name
            self.train(job, keep_config(path, config, folder))
        except LongTailError as error:
            self.failures[job.name] = str(error)
            print(f'  {job.name}: {error}', flush=True)
        return job.name not in self.failures

    def train(self, job: Job, config: Path) -> None:
        """Train a run unless it is finished.

        Raises:
            LongTailError: If the training fails, with its last words.
        """
        folder = self.work_dir / job.name
        if self.metrics(job) is not None:
            return
        log_path = folder / 'log.txt'
        print(f'  {job.name}: training, log in {log_path}', flush=True)
        start = time.monotonic()
        run_with_progress(
            [
                str(TRAIN),
                str(config),
                '--work-dir',
                str(folder),
                '--resume',
                'auto',
            ],
            'training',
            log_path,
            Console(),
            num_epochs(load_config(config)),
            pass_fds=[self.lock.fileno()],
        )
        if self.metrics(job) is None:
            raise LongTailError('has no results: its config has no val_cfg')
        seconds = time.monotonic() - start
        print(f'  {job.name}: {duration(seconds)}', flush=True)


# -- the results -----------------------------------------------------------


def write_csv(path: Path, results: dict[Job, dict[str, Any]]) -> None:
    """Write one line a finished run: config, settings, seed, all metrics."""
    keys = dict.fromkeys(key for job in results for key, _ in job.settings)
    metrics = dict.fromkeys(
        name for result in results.values() for name in result
    )
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ['config', *keys, 'seed', *metrics], lineterminator='\n'
    )
    writer.writeheader()
    for job, result in results.items():
        writer.writerow(
            {'config': job.config, **dict(job.settings), 'seed': job.seed}
            | result
        )
    write_whole(path, text.getvalue())


def summarise(
    results: dict[Job, dict[str, Any]], endings: list[str] | None
) -> dict[str, dict[str, list[float]]]:
    """Collect a metric's values over seeds.

    Args:
        results (dict): Metrics of each finished run.
        endings (list[str] | None): Ends of the names of the metrics; None
            takes every AP over all sizes and IoUs.

    Returns:
        dict[str, dict[str, list[float]]]: Metric -> method -> values, one a
        seed. The -1 of a mean over nothing is left out.

    Raises:
        LongTailError: If no metric has such a name.
    """
    names = list(dict.fromkeys(n for r in results.values() for n in r))
    if endings is None:
        chosen = [n for n in names if SUMMARY.fullmatch(n)] or names[:4]
    else:
        chosen = [n for n in names if n.endswith(tuple(endings))]
    if names and not chosen:
        raise LongTailError(
            f'--metric: no result ends with {" or ".join(endings or [])}, '
            f'there are {", ".join(names)}'
        )
    summary: dict[str, dict[str, list[float]]] = {}
    for name in chosen:
        summary[name] = {job.method: [] for job in results}
        for job, result in results.items():
            if result.get(name, -1) != -1:
                summary[name][job.method].append(result[name])
    return summary


def print_table(summary: dict[str, dict[str, list[float]]]) -> None:
    """Print mean and standard deviation over seeds, a row a method."""
    table = Table(box=box.MARKDOWN)
    table.add_column('method', overflow='fold')
    for name in summary:
        table.add_column(name.rpartition('/')[2], justify='right')
    table.add_column('seeds', justify='right')
    columns = list(summary.values())
    for method in columns[0]:
        cells = []
        for column in columns:
            values = column[method]
            cell = f'{statistics.mean(values):.3f}' if values else '-'
            if len(values) > 1:
                cell += f' ± {statistics.stdev(values):.3f}'
            cells.append(cell)
        seeds = max(len(column[method]) for column in columns)
        table.add_row(method, *cells, str(seeds))
    # Wide enough not to break what is pasted into a README.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def draw(path: Path, summary: dict[str, dict[str, list[float]]]) -> None:
    """Plot every run and the mean with its standard deviation.

    Args:
        path (Path): Image to write.
        summary (dict): What `summarise` gives.
    """
    methods = list(next(iter(summary.values())))
    figure = Figure(
        (2 + 3 * len(summary), 1 + 0.4 * len(methods)), layout='constrained'
    )
    panels = figure.subplots(1, len(summary), sharey=True, squeeze=False)[0]
    for panel, (name, column) in zip(panels, summary.items(), strict=True):
        for row, method in enumerate(methods):
            values = column[method]
            if not values:
                continue
            panel.plot(values, [row] * len(values), '.', color='0.7')
            panel.errorbar(
                statistics.mean(values),
                row,
                xerr=statistics.stdev(values) if len(values) > 1 else None,
                fmt='o',
                color='C0',
                capsize=3,
            )
        panel.set_xlabel(name.rpartition('/')[2])
        panel.grid(axis='x', alpha=0.3)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    write_whole(path, figure_bytes(figure, path))


def main() -> int:
    """Train what is missing, and compare what is finished."""
    args = parse_args()
    jobs = plan(args)
    work_dir = Path(args.work_dir)
    # A SIGTERM ends the training that runs, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with exclusive(work_dir) as lock:
        queue = Queue(work_dir, args.cfg_options, lock)
        for job in jobs:
            queue.prepare(job)  # A mistake shows before hours of training.
        results: dict[Job, dict[str, Any]] = {}
        for number, job in enumerate(jobs, 1):
            print(f'[{number}/{len(jobs)}] {job.name}', flush=True)
            try:
                is_finished = queue.finish(job)
            except KeyboardInterrupt:
                print('Interrupted; the same command goes on.')
                raise
            if is_finished:
                results[job] = queue.metrics(job) or {}
                write_csv(work_dir / 'ablation.csv', results)
    if results:
        summary = summarise(results, args.metric)
        print_table(summary)
        draw(work_dir / 'ablation.png', summary)
        print(f'{work_dir}/ablation.csv, {work_dir}/ablation.png')
    for name, reason in queue.failures.items():
        print(f'failed: {name}: {reason}', file=sys.stderr)
    return 1 if queue.failures else 0


if __name__ == '__main__':
    run(main)
