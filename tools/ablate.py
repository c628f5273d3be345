r"""Train a grid of configs, settings and seeds, here or through Slurm.

    python tools/ablate.py softmax.py bags.py --seeds 0 1 2
    python tools/ablate.py bags.py --seeds 0 1 2 \
        --set model.roi_head.bbox_head.loss_cls.bin_edges '(10,100)' '(30,300)'

One run is trained after the other, or with --launcher slurm as many as
--max-jobs at the same time, as tasks of a job array; then this returns at
once. WORK_DIR/commands has the command of each run.

The same command goes on after an interruption: finished runs are kept,
unfinished ones go on from their last checkpoint. A config with `base_config`
(a second stage) starts from the last checkpoint of a run of that config with
the same seed, which is trained first. That run takes those settings whose key
the second stage inherits from it unchanged.

Through Slurm the same command also says how far the runs are. Those that
failed or were cancelled are submitted again, unless there is --collect.
"""

import argparse
import csv
import io
import shlex
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import IO, Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.apis.processes import (
    SUMMARY,
    duration,
    exclusive,
    run_with_progress,
)
from mmdet_longtail.cli.main import run as run_tool
from mmdet_longtail.cli.options import add_cfg_options
from mmdet_longtail.cli.slurm import ArrayTasks, progress
from mmdet_longtail.cli.sweep import Run, Sweep, plan
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import figure_bytes, write_atomic

HERE = Path(__file__).resolve()
MISSING = 'not trained yet'


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
        help='gets a directory for each run, commands/, ablation.csv and '
        'ablation.png (default: %(default)s)',
    )
    parser.add_argument(
        '--metric',
        nargs='+',
        metavar='KEY',
        help='metrics in the table and the plot, by the end of their names '
        '(default: every AP over all sizes and IoUs)',
    )
    add_cfg_options(
        parser, 'overrides for all runs, those of a base_config too'
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'slurm'],
        default='none',
        help='none: train here, one run after the other; slurm: submit job '
        'arrays (default: %(default)s)',
    )
    slurm = parser.add_argument_group('with --launcher slurm')
    slurm.add_argument(
        '--max-jobs', type=int, metavar='N', help='runs at the same time'
    )
    slurm.add_argument('--partition', help='of the cluster')
    slurm.add_argument(
        '--gpus',
        type=int,
        metavar='N',
        help='GPUs, and processes, of each run, on one node; without it, a '
        'run is one process and asks for no GPU',
    )
    slurm.add_argument(
        '--cpus-per-task', metavar='N', help='CPUs of each process'
    )
    slurm.add_argument(
        '--time', help='of each run, as 1-00:00:00; it is requeued after it'
    )
    slurm.add_argument(
        '--sbatch-args',
        default='',
        metavar='OPTIONS',
        help='anything else for sbatch, as '
        '--sbatch-args="--account=mine --mem=16G", with the =',
    )
    slurm.add_argument('--collect', action='store_true', help='submit nothing')
    args = parser.parse_args()
    if args.launcher == 'none':
        for action in slurm._group_actions:
            if getattr(args, action.dest) != action.default:
                parser.error(
                    f'{action.option_strings[0]} is for --launcher slurm'
                )
    return args


# -- training here ---------------------------------------------------------


class Queue:
    """Trains runs one at a time, each at most once.

    Args:
        sweep (Sweep): Where the runs go.
        lock (IO): Kept open by every training, see `exclusive`.
    """

    def __init__(self, sweep: Sweep, lock: IO) -> None:
        self.sweep = sweep
        self.lock = lock
        self.failures: dict[str, str] = {}

    def finish(self, run: Run) -> bool:
        """Train a run unless it is finished, and its base before it.

        Returns:
            bool: Whether the run is finished now.
        """
        if run.name in self.failures:
            return False
        try:
            base = self.sweep.prepare(run)[1]
            if base is not None and not self.finish(base):
                raise LongTailError(f'its base {base.name} failed')
            self.train(run)
        except LongTailError as error:
            self.failures[run.name] = str(error)
            print(f'  {run.name}: {error}', flush=True)
        return run.name not in self.failures

    def train(self, run: Run) -> None:
        """Train a run unless it is finished.

        Raises:
            LongTailError: If the training fails, with its last words, or was
                begun with another config.
        """
        config, _ = self.sweep.prepare(run)
        command = self.sweep.keep(run, config)
        if self.sweep.metrics(run) is not None:
            return
        log_path = self.sweep.log_path(run)
        print(f'  {run.name}: training, log in {log_path}', flush=True)
        start = time.monotonic()
        run_with_progress(
            command,
            'training',
            log_path,
            Console(),
            pass_fds=[self.lock.fileno()],
        )
        seconds = time.monotonic() - start
        print(f'  {run.name}: {duration(seconds)}', flush=True)


def train_here(sweep: Sweep, runs: list[Run]) -> dict[str, str]:
    """Train what is missing, one run after the other.

    Args:
        sweep (Sweep): Where the runs go.
        runs (list[Run]): The grid.

    Returns:
        dict[str, str]: Name of a failed run -> why.

    Raises:
        LongTailError: If another tool or Slurm is at work there.
    """
    with exclusive(sweep.work_dir) as lock:
        tasks = ArrayTasks(sweep.work_dir / 'slurm')
        for name in tasks.states():
            raise LongTailError(
                f'{name} is in the queue of Slurm as {tasks.task_of[name]}; '
                'scancel it, or use --launcher slurm'
            )
        queue = Queue(sweep, lock)
        for number, run in enumerate(runs, 1):
            print(f'[{number}/{len(runs)}] {run.name}', flush=True)
            try:
                is_finished = queue.finish(run)
            except KeyboardInterrupt:
                print('Interrupted; the same command goes on.')
                raise
            if is_finished:
                path = sweep.work_dir / 'ablation.csv'
                write_csv(path, finished(sweep, runs))
    return queue.failures


# -- training through Slurm ------------------------------------------------


class SlurmQueue:
    """Says how far runs are, and submits those that are missing.

    Args:
        sweep (Sweep): Where the runs go.
        args (argparse.Namespace): The command line.
    """

    def __init__(self, sweep: Sweep, args: argparse.Namespace) -> None:
        self.sweep = sweep
        self.args = args
        self.tasks = ArrayTasks(sweep.work_dir / 'slurm')
        self.states = self.tasks.states()
        self.jobs = {self.tasks.job(name) for name in self.states}
        self.failures: dict[str, str] = {}

    def is_missing(self, run: Run) -> bool:
        """Say how far a run is, and tell if it has to be submitted."""
        is_missing = False
        try:
            state = self.prepare(run)
        except LongTailError as error:
            self.failures[run.name] = state = str(error)
        if state == MISSING and run.name in self.states:
            state = f'{self.states[run.name]}, {self.tasks.task_of[run.name]}'
            state += progress(self.sweep.log_path(run))
        elif state == MISSING:
            is_missing = True
            if run.name in self.tasks.task_of:
                log_path = self.sweep.log_path(run)
                words = self.tasks.last_words(run.name, log_path)
                state = f'failed: {words} ({log_path})'
                if self.args.collect:
                    self.failures[run.name] = words
        print(f'  {run.name}: {state}', flush=True)
        return is_missing

    def prepare(self, run: Run) -> str:
        """Write what the task of a run reads.

        Returns:
            str: Finished, missing, or what it waits for.

        Raises:
            LongTailError: If it was begun with another config.
        """
        config, base = self.sweep.prepare(run)
        if base is not None and config.load_from is None:
            return f'waits for the last checkpoint of {base.name}'
        options, srun = [], []
        if self.args.gpus and self.args.gpus > 1:
            options += ['--launcher', 'slurm']
            srun = gpu_options(self.args.gpus)
        if 'runner_type' not in config:
            # It ends with 75 when the time is up, and goes on from there.
            options += ['--cfg-options', 'runner_type=mmdet.ResumableRunner']
        self.sweep.keep(run, config, options, srun)
        return MISSING if self.sweep.metrics(run) is None else 'finished'

    def submit(self, runs: list[Run]) -> None:
        """Submit runs as one array.

        Raises:
            LongTailError: If Slurm refuses it.
        """
        job = self.tasks.submit(
            HERE.with_name('ablate.sbatch'),
            self.sweep.work_dir,
            [run.name for run in runs],
            # So --max-jobs holds together with what was submitted before.
            self.jobs,
            self.args.max_jobs,
            sbatch_options(self.args),
        )
        self.jobs.add(job)
        print(f'submitted {len(runs)} as job {job}', flush=True)


def train_in_slurm(
    sweep: Sweep, runs: list[Run], args: argparse.Namespace
) -> dict[str, str]:
    """Submit what is missing, and say how far the rest is.

    Args:
        sweep (Sweep): Where the runs go.
        runs (list[Run]): The grid.
        args (argparse.Namespace): The command line.

    Returns:
        dict[str, str]: Name of a run that failed and is not submitted again
        -> why.

    Raises:
        LongTailError: If Slurm does not answer or refuses a job, or another
            tool is at work there.
    """
    with exclusive(sweep.work_dir):
        queue = SlurmQueue(sweep, args)
        for level in sweep.levels(runs):
            missing = [run for run in level if queue.is_missing(run)]
            if missing and not args.collect:
                queue.submit(missing)
    if queue.jobs:
        jobs = sorted(queue.jobs)
        print(
            f'watch: squeue --jobs {",".join(jobs)}; end: scancel '
            f'{" ".join(jobs)}; the same command collects'
        )
    return queue.failures


def sbatch_options(args: argparse.Namespace) -> list[str]:
    """Spell the options of all runs for sbatch; --sbatch-args win."""
    options = []
    for name in ('partition', 'cpus_per_task', 'time'):
        value = getattr(args, name)
        if value is not None:
            options.append(f'--{name.replace("_", "-")}={value}')
    if args.gpus:
        options += gpu_options(args.gpus)
    return [*options, *shlex.split(args.sbatch_args)]


def gpu_options(gpus: int) -> list[str]:
    """Ask Slurm for GPUs of one node, with a process for each."""
    return ['--nodes=1', f'--ntasks={gpus}', f'--gres=gpu:{gpus}']


# -- the results -----------------------------------------------------------


def finished(sweep: Sweep, runs: list[Run]) -> dict[Run, dict[str, Any]]:
    """Read the metrics of the finished runs of a grid."""
    results = {run: sweep.metrics(run) for run in runs}
    return {run: found for run, found in results.items() if found is not None}


def write_csv(path: Path, results: dict[Run, dict[str, Any]]) -> None:
    """Write one line a finished run: config, settings, seed, all metrics."""
    keys = dict.fromkeys(key for run in results for key, _ in run.settings)
    metrics = dict.fromkeys(
        name for result in results.values() for name in result
    )
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ['config', *keys, 'seed', *metrics], lineterminator='\n'
    )
    writer.writeheader()
    for run, result in results.items():
        writer.writerow(
            {'config': run.config, **dict(run.settings), 'seed': run.seed}
            | result
        )
    write_atomic(path, text.getvalue())


def summarise(
    results: dict[Run, dict[str, Any]], endings: list[str] | None
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
        summary[name] = {run.method: [] for run in results}
        for run, result in results.items():
            if result.get(name, -1) != -1:
                summary[name][run.method].append(result[name])
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
    Console(width=None if sys.stdout.isatty() else 400).print(table)


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
    write_atomic(path, figure_bytes(figure, path))


def main() -> int:
    """Train what is missing, and compare what is finished."""
    args = parse_args()
    runs = plan(args.configs, args.settings, args.seeds)
    work_dir = Path(args.work_dir)
    sweep = Sweep(work_dir, args.cfg_options, HERE.with_name('train.py'))
    # A SIGTERM ends the training that runs, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep.levels(runs)  # A mistake shows before hours of training.
    if args.launcher == 'slurm':
        failures = train_in_slurm(sweep, runs, args)
    else:
        failures = train_here(sweep, runs)
    results = finished(sweep, runs)
    if results:
        write_csv(work_dir / 'ablation.csv', results)
        summary = summarise(results, args.metric)
        print_table(summary)
        draw(work_dir / 'ablation.png', summary)
        print(f'{work_dir}/ablation.csv, {work_dir}/ablation.png')
    for name, reason in failures.items():
        print(f'failed: {name}: {reason}', file=sys.stderr)
    return 1 if failures else 0


if __name__ == '__main__':
    run_tool(main)
