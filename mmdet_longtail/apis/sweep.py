"""Sweeps: train a grid of configs, settings and random seeds."""

import copy
import hashlib
import itertools
import os
import re
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config, DictAction
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console

from mmdet_longtail.apis.check import check_run_config
from mmdet_longtail.apis.fork_server import ForkServer
from mmdet_longtail.apis.processes import (
    SUMMARY,
    duration,
    exclusive,
    keep_config,
    run_with_progress,
    train_command,
)
from mmdet_longtail.apis.runner import (
    NO_STAGE,
    add_feature_cache,
    checkpoint_digest,
    last_checkpoint,
    load_config,
)
from mmdet_longtail.engine.run_faults import reported_keys
from mmdet_longtail.errors import LongTailError, check, errors_of
from mmdet_longtail.structures.findings import raise_or_log
from mmdet_longtail.utils import tables
from mmdet_longtail.utils.fileio import read_record, write_atomic
from mmdet_longtail.visualization.figures import figure_bytes

LONGEST_NAME = 60
LEARNING_RATE = 'optim_wrapper.optimizer.lr'
Setting = tuple[str, Any]
"""A dotted key of a config and its value."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training of a sweep, whose config has settings and random seed.

    ``base`` is the first stage to start from, the run of the config's
    ``base_config``.
    """

    sweep_dir: Path
    path: str
    settings: tuple[Setting, ...]
    seed: int
    config: Config
    base: 'Run | None' = None
    is_cached: bool = False

    @property
    def method(self) -> str:
        """Name of what is compared: the config and the settings."""
        return method_name(self.path, self.settings)

    @property
    def name(self) -> str:
        """Name of the work directory."""
        return f'{self.method}_seed={self.seed}'

    @property
    def folder(self) -> Path:
        """Work directory, with all output in ``log.txt``."""
        return self.sweep_dir / self.name

    @property
    def metrics(self) -> dict[str, Any] | None:
        """Metrics of a finished run, else None."""
        path = self.folder / 'metrics.json'
        return read_record(path) if path.exists() else None

    @property
    def is_started(self) -> bool:
        """Whether a training has saved a checkpoint, or has finished."""
        return (self.folder / 'last_checkpoint').exists()

    @property
    def stages(self) -> 'list[Run]':
        """The run after its bases, in the order of training."""
        return [*(self.base.stages if self.base else ()), self]

    def write(
        self, options: Sequence[str] = (), srun: Sequence[str] = ()
    ) -> list[str]:
        """Write the config, and the command unless the run is finished.

        The command, which is returned as arguments of ``python``, has the
        options of train.py and, if any, of srun.
        """
        config = self.sweep_dir / 'configs' / f'{self.name}.py'
        keep_config(config, self.config, self.folder)
        self._keep_base(config.with_suffix('.base'))
        command = train_command(config, self.folder, *options)
        if self.metrics is None:
            path = self.sweep_dir / 'commands' / f'{self.name}.sh'
            by = f', by {shlex.join(["srun", *srun, "bash", str(path)])}'
            write_atomic(
                path,
                f'# In {shlex.quote(os.getcwd())}{by if srun else ""}:\n'
                f'{shlex.join([sys.executable, *command])}\n',
            )
        return command

    def _keep_base(self, record: Path) -> None:
        """Record the checkpoint to start from, the same when it is resumed."""
        path = self.config.get('load_from') or 'none'
        source = path
        if self.base is not None:
            source = self.base.name
        elif os.path.isfile(path):
            source = checkpoint_digest(path)
        if record.exists() and self.is_started:
            check(
                record.read_text() == source,
                f'{self.folder} was started from another checkpoint than '
                f'{path}: delete the directory to train it '
                'again, or use another --work-dir',
            )
        write_atomic(record, source)


class Sweep:
    """A grid of runs below one work directory.

    ``runs`` has each method with one seed before the next seed.

    Args:
        work_dir (str | Path): Gets a directory per run, ``configs/`` and
            ``commands/``.
        configs (Sequence[str]): Paths of config files.
        settings (Mapping, optional): Dotted key -> values to compare. Each
            value replaces the config's. Several keys make a grid.
        seeds (Sequence[int]): Random seeds. Defaults to (0,).
        cfg_options (Mapping, optional): Overrides for all runs and bases.
        cached (bool): Train classifier stages from cached RoI features, which
            the sweep shares. Defaults to False.
        base_checkpoint (str | Path, optional): A trained detector, or the
            work directory of its training, that all runs start from.
            '{seed}' stands for the random seed of the run.
        learning_rates (Mapping, optional): Learning rate per method.

    Raises:
        LongTailError: If a config cannot be loaded or evaluates nothing, a
            setting does not fit, two runs have the same name, or a config is
            no classifier stage where one is needed.
    """

    def __init__(
        self,
        work_dir: str | Path,
        configs: Sequence[str],
        settings: Mapping[str, Sequence[Any]] | None = None,
        seeds: Sequence[int] = (0,),
        cfg_options: Mapping[str, Any] | None = None,
        cached: bool = False,
        base_checkpoint: str | Path | None = None,
        learning_rates: Mapping[str, float] | None = None,
    ) -> None:
        self.work_dir = Path(work_dir)
        self.cfg_options = cfg_options
        self.cached = cached
        self.base_checkpoint = base_checkpoint
        axes = [
            [(key, value) for value in values]
            for key, values in (settings or {}).items()
        ]
        self.runs = []
        for seed, config in itertools.product(seeds, configs):
            for point in itertools.product(*axes):
                rate = (learning_rates or {}).get(method_name(config, point))
                if rate is not None:
                    point = (*point, (LEARNING_RATE, rate))
                self.runs.append(self._build(config, point, seed))
        stages = [run for run in self.runs if run.is_cached]
        check(not cached or stages, f'--cached: {configs[0]} {NO_STAGE}')
        for name, number in Counter(run.name for run in self.runs).items():
            check(
                number == 1,
                f'two runs are called {name}: give each config file its own '
                'name, and each value and seed once',
            )
        bases: dict[str, Run] = {}
        for run in itertools.chain(*(run.stages for run in self.runs)):
            same = bases.setdefault(run.name, run)
            check(
                same.config.to_dict() == run.config.to_dict(),
                f'two trainings are called {run.name}, of {same.path} and '
                f'{run.path}: give each base_config its own name',
            )

    def _build(
        self, path: str, settings: tuple[Setting, ...], seed: int
    ) -> Run:
        """Build a run and its bases.

        A base has those settings whose values the config inherits from it. A
        base keeps its own learning rate.
        """
        config = load_config(path, self.cfg_options)
        is_cached = self.cached and add_feature_cache(config)
        base = None
        if self.base_checkpoint is not None:
            check(
                'base_config' in config,
                f'--base-checkpoint: {path} has no base_config, so it is no '
                'second stage that starts from a detector; set load_from by '
                '--cfg-options',
            )
            detector = str(self.base_checkpoint).replace('{seed}', str(seed))
            if os.path.isdir(detector):
                detector = str(last_checkpoint(detector))
            config.load_from = detector
        elif 'base_config' in config:
            base_path = os.path.join(os.path.dirname(path), config.base_config)
            base_config = load_config(base_path, self.cfg_options)
            inherited = tuple(
                setting
                for setting in settings
                if setting[0] != LEARNING_RATE
                and _inherits(config, base_config, setting[0])
            )
            base = self._build(base_path, inherited, seed)
            config.load_from = str(base.folder)
        for key, value in settings:
            holder, last = locate(config, key)
            holder[last] = value
        check(
            config.get('val_cfg') is not None,
            f'{path}: has no val_cfg, so its runs would have no results; set '
            'val_cfg',
        )
        config.randomness = dict(config.get('randomness', {}), seed=seed)
        path = os.path.normpath(path)
        own = (path, settings, seed, config, base, is_cached)
        return Run(self.work_dir, *own)

    def check_metrics(self, endings: Sequence[str] | None) -> None:
        """Check that some run reports metrics with these ends of their names.

        Nothing is checked if a run has a metric whose names are not known.

        Raises:
            LongTailError: If no run reports one.
        """
        names: list[str] = []
        for run in self.runs:
            known = list(run.metrics or ()) or reported_names(run.config)
            if known is None:
                return
            names += known
        for ending in endings or ():
            near = get_close_matches(ending, {*names}, n=3, cutoff=0.3)
            check(
                any(name.endswith(ending) for name in names),
                f'--metric: no run reports a metric that ends with {ending}, '
                f'but for example {", ".join(near or names[:3])}',
            )

    def with_bases(self) -> list[Run]:
        """Return all runs and their bases once, each base before its runs."""
        runs = itertools.chain(*(run.stages for run in self.runs))
        return list({run.name: run for run in runs}.values())

    def check(self) -> None:
        """Check each config that no run has started, once for all seeds.

        Prints warnings. A second stage is checked without its first, whose
        checkpoint may not exist yet. Of cached runs one per file is checked,
        because a check takes as long as such a run.

        Raises:
            LongTailError: If a training would fail or mislead, with the first
                reason.
        """
        runs = {
            run.path if run.is_cached else run.method: run
            for run in self.with_bases()
            if not run.is_started
        }
        for run in runs.values():
            config = copy.deepcopy(run.config)
            config.work_dir = str(run.folder)
            if run.base is not None:
                config.load_from = None
            with errors_of(run.method):
                raise_or_log(check_run_config(config), print)

    def save_results(self) -> dict[Run, dict[str, Any]]:
        """Return the metrics of the finished runs, and write ablation.csv."""
        metrics = {run: run.metrics for run in self.runs}
        results = {run: m for run, m in metrics.items() if m is not None}
        if results:
            write_csv(self.work_dir / 'ablation.csv', results)
        return results

    def train(self) -> dict[str, str]:
        """Train all unfinished runs, and return the reason per failed one.

        A failed run does not stop the others. Results are saved after each.

        Raises:
            LongTailError: If another process trains in the work directory.
        """
        failures: dict[str, str] = {}
        show = partial(print, flush=True)
        runs = self.with_bases()
        self.save_results()  # a broken file is found before a training
        with exclusive(self.work_dir) as lock, ExitStack() as stack:
            server = None
            if any(run.is_cached and run.metrics is None for run in runs):
                server = ForkServer([lock.fileno()])
                stack.enter_context(server)
            for number, run in enumerate(runs, 1):
                show(f'[{number}/{len(runs)}] {run.name}')
                try:
                    if run.base is not None and run.base.name in failures:
                        raise LongTailError(f'its base {run.base.name} failed')
                    command = run.write()
                    if run.metrics is None:
                        log = run.folder / 'log.txt'
                        show(f'  {run.name}: training, log in {log}')
                        seconds = run_with_progress(
                            command, 'training', log, Console(), lock, server
                        )
                        show(f'  {run.name}: {duration(seconds)}')
                except LongTailError as error:
                    failures[run.name] = str(error)
                    show(f'  {run.name}: {error}')
                self.save_results()
        return failures


def method_name(path: str, settings: Sequence[Setting]) -> str:
    """Name a config with settings."""
    leaves = [key.rpartition('.')[2] for key, _ in settings]
    parts = [
        f'{leaf if leaves.count(leaf) == 1 else key}={in_a_name(value)}'
        for leaf, (key, value) in zip(leaves, settings)
    ]
    return '_'.join([Path(path).stem, *parts])


def reported_names(config: Config) -> list[str] | None:
    """Return the metrics that the validation reports; None where unknown."""
    evaluators = config.get('val_evaluator')
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    init_default_scope(config.get('default_scope', 'mmdet'))
    try:
        # Without the files, which may be large.
        metrics = [dict(evaluator, ann_file=None) for evaluator in evaluators]
        return reported_keys(Evaluator(metrics))
    except Exception:  # of a metric that needs its file
        return None


def parse_value(text: str) -> Any:
    """Parse a value as Python, else as mmengine's ``--cfg-options`` does.

    Raises:
        LongTailError: If a bracket is not closed.
    """
    with suppress(Exception):
        # As safe as a config, which is code of the same user.
        return eval(text, {'__builtins__': {}, 'dict': dict})
    try:
        return DictAction._parse_iterable(text)
    except AssertionError:
        raise LongTailError(
            f'--set: expected a value with closed brackets, found {text}'
        ) from None


def in_a_name(value: Any) -> str:
    """Format a value for the name of a directory: (10, 100) as 10,100."""
    text = re.sub(r'[\'"\s()\[\]{}]', '', str(value)).replace(':', '-')
    text = re.sub(r'[^\w.,+-]', '-', text)
    if len(text) > LONGEST_NAME:
        digest = hashlib.sha256(str(value).encode()).hexdigest()[:8]
        text = f'{text[:LONGEST_NAME]}-{digest}'
    return text


def locate(config: Config, key: str) -> tuple[Any, str | int]:
    """Return the container of a dotted key, and the last part of the key.

    Raises:
        LongTailError: If the config has no such container. A key at the top
            level has to exist, because mmengine ignores unknown ones.
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
    check(
        isinstance(holder, Config | dict | list),
        f'--set {key}: {config.filename} has no such key; check its spelling',
    )
    return holder, last


def _inherits(config: Config, base: Config, key: str) -> bool:
    """Check that a config and its base have a dotted key with one value."""
    try:
        own, inherited = (locate(each, key) for each in (config, base))
        return own[0][own[1]] == inherited[0][inherited[1]]
    except (LongTailError, KeyError):
        return False


# -- the results -----------------------------------------------------------

Summary = dict[str, dict[str, list[float]]]
"""Metric -> method -> one value per seed."""


def write_csv(path: Path, results: Mapping[Run, dict[str, Any]]) -> None:
    """Write one line per run: config, settings, seed and all metrics."""
    rows = [
        {'config': run.path, **dict(run.settings), 'seed': run.seed} | metrics
        for run, metrics in results.items()
    ]
    keys = (key for run in results for key, _ in run.settings)
    names = dict.fromkeys(['config', *keys, 'seed', *itertools.chain(*rows)])
    columns = {name: [row.get(name, '') for row in rows] for name in names}
    tables.write_csv(path, columns)


def summarise(
    results: Mapping[Run, dict[str, Any]],
    endings: Sequence[str] | None = None,
) -> Summary:
    """Collect the values of metrics over seeds, but the -1 of no class.

    Args:
        results (Mapping): Metrics of each finished run.
        endings (Sequence[str], optional): Ends of the names of the metrics.
            Defaults to every AP over all sizes and IoUs.

    Raises:
        LongTailError: If no metric has such a name.
    """
    names = list(dict.fromkeys(itertools.chain(*results.values())))
    if endings is None:
        chosen = [n for n in names if SUMMARY.fullmatch(n)] or names[:4]
    else:
        chosen = [n for n in names if n.endswith(tuple(endings))]
        check(
            chosen or not names,
            f'--metric: no result ends with {" or ".join(endings)}, expected '
            f'the end of one of {", ".join(names)}',
        )
    summary: Summary = {
        name: {run.method: [] for run in results} for name in chosen
    }
    for name, (run, metrics) in itertools.product(chosen, results.items()):
        if metrics.get(name, -1) != -1:
            summary[name][run.method].append(metrics[name])
    return summary


def _labels(names: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Return the label of each metric, and its factor: AP and AR get percent.

    A prefix that all metrics have is left out.
    """
    parts = {name: name.rpartition('/') for name in names}
    prefixes = {prefix for prefix, _, _ in parts.values()}
    labels = {}
    for name, (_, _, metric) in parts.items():
        label = name if len(prefixes) > 1 else metric
        is_share = re.search('A[PR]', metric) and not metric.endswith(
            '_classes'
        )
        labels[name] = (f'{label} %', 100) if is_share else (label, 1)
    return labels


def print_table(summary: Summary) -> None:
    """Print mean and standard deviation over seeds, one row per method."""
    rows = []
    columns = list(summary.values())
    labels, factors = zip(*_labels(summary).values())
    for method in columns[0]:
        cells = []
        for factor, column in zip(factors, columns):
            values = [factor * value for value in column[method]]
            form = '.1f' if factor == 100 else '.3f'
            cell = format(statistics.mean(values), form) if values else '-'
            if len(values) > 1:
                cell += f' ± {statistics.stdev(values):{form}}'
            cells.append(cell)
        seeds = max(len(column[method]) for column in columns)
        rows.append((method, *cells, seeds))
    table = tables.make_table(['method', *labels, 'seeds'], rows)
    table.box = box.MARKDOWN
    table.columns[0].overflow = 'fold'
    # Wide enough for a README.
    Console(width=None if sys.stdout.isatty() else 400).print(table)


def plot(path: Path, summary: Summary) -> None:
    """Plot every run, and the mean with its standard deviation over seeds."""
    methods = list(next(iter(summary.values())))
    figure = Figure(
        (2 + 3 * len(summary), 1 + 0.4 * len(methods)), layout='constrained'
    )
    panels = figure.subplots(1, len(summary), sharey=True, squeeze=False)[0]
    labels = _labels(summary)
    for panel, (name, column) in zip(panels, summary.items()):
        label, factor = labels[name]
        for row, run_values in enumerate(column.values()):
            if not run_values:
                continue
            values = [factor * value for value in run_values]
            panel.plot(values, [row] * len(values), '.', color='0.7')
            std = statistics.stdev(values) if len(values) > 1 else None
            mean = statistics.mean(values)
            panel.errorbar(mean, row, xerr=std, fmt='o', color='C0', capsize=3)
        panel.set_xlabel(label)
        panel.grid(axis='x', alpha=0.3)
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    write_atomic(path, figure_bytes(figure, path))
