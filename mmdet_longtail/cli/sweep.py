"""The runs of a sweep: a grid of configs, settings and seeds."""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from mmdet_longtail.apis.processes import keep_config
from mmdet_longtail.apis.runner import last_checkpoint, load_config
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import write_atomic

LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class Run:
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


def plan(
    configs: Sequence[str],
    settings: Sequence[Sequence[str]],
    seeds: Sequence[int],
) -> list[Run]:
    """Lay out a grid: every method with one seed, then with the next.

    Args:
        configs (Sequence[str]): Paths of configs.
        settings (Sequence[Sequence[str]]): Dotted keys, each with the texts
            of its values.
        seeds (Sequence[int]): Seeds of everything random.

    Raises:
        LongTailError: If a --set has no value, or two runs would share a
            directory.
    """
    axes = []
    for key, *values in settings:
        if not values:
            raise LongTailError(f'--set {key}: no value; write KEY V1 V2 ...')
        axes.append([(key, parse_value(text)) for text in values])
    runs = [
        Run(os.path.normpath(config), point, seed)
        for seed in seeds
        for config in configs
        for point in itertools.product(*axes)
    ]
    for index, run in enumerate(runs):
        if run.name in [other.name for other in runs[:index]]:
            raise LongTailError(
                f'two runs are called {run.name}: give each config file its '
                'own name, and each value and seed once'
            )
    return runs


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


class Sweep:
    """Where the runs of a grid are, and how each of them is trained.

    Args:
        work_dir (Path): Gets a directory for each run, ``configs/`` and
            ``commands/``.
        cfg_options (dict | None): Overrides for all runs.
        train (Path): tools/train.py.
    """

    def __init__(
        self,
        work_dir: Path,
        cfg_options: dict[str, Any] | None,
        train: Path,
    ) -> None:
        self.work_dir = work_dir
        self.cfg_options = cfg_options
        self.train = train

    def folder(self, run: Run) -> Path:
        """Give the directory of a run."""
        return self.work_dir / run.name

    def log_path(self, run: Run) -> Path:
        """Give the file with all that a run says."""
        return self.folder(run) / 'log.txt'

    def config_path(self, run: Run) -> Path:
        """Give the config of a run, as it is trained."""
        return self.work_dir / 'configs' / f'{run.name}.py'

    def metrics(self, run: Run) -> dict[str, Any] | None:
        """Give the results of a finished run, None before."""
        path = self.folder(run) / 'metrics.json'
        return json.loads(path.read_text()) if path.exists() else None

    def prepare(self, run: Run) -> tuple[Config, Run | None]:
        """Build the config of a run, and name the run that it starts from.

        Args:
            run (Run): One of the grid, or the base of one.

        Returns:
            tuple[Config, Run | None]: ``load_from`` is the checkpoint that a
            finished base has left, or an unfinished one will leave; None
            where that cannot be told.

        Raises:
            LongTailError: If a setting does not fit the config, or the run
                would have no results.
        """
        config = load_config(run.config, self.cfg_options)
        base = None
        if 'base_config' in config:
            path = Path(run.config).parent / config.base_config
            base_config = load_config(path, self.cfg_options)
            settings = tuple(
                (key, value)
                for key, value in run.settings
                if inherits(config, base_config, key)
            )
            base = Run(os.path.normpath(path), settings, run.seed)
        for key, value in run.settings:
            holder, last = locate(config, key)
            holder[last] = value
        if config.get('val_cfg') is None:
            raise LongTailError(
                f'{run.config}: has no val_cfg, so its runs would have no '
                'results; give it one'
            )
        config.randomness = dict(config.get('randomness', {}), seed=run.seed)
        if base is not None:
            config.load_from = self.checkpoint(base)
        return config, base

    def checkpoint(self, run: Run) -> str | None:
        """Name the checkpoint that a run ends with, None if unknown."""
        if self.metrics(run) is not None:
            return str(last_checkpoint(self.folder(run)))
        name = last_checkpoint_name(self.prepare(run)[0])
        return None if name is None else str(self.folder(run) / name)

    def levels(self, runs: Sequence[Run]) -> list[list[Run]]:
        """Sort runs and their bases: each level starts from lower ones.

        Args:
            runs (Sequence[Run]): Of a grid.

        Returns:
            list[list[Run]]: Each run once, bases of nothing first.
        """
        level_of: dict[str, int] = {}
        levels: list[list[Run]] = []

        def add(run: Run) -> int:
            if run.name not in level_of:
                base = self.prepare(run)[1]
                level = 0 if base is None else add(base) + 1
                level_of[run.name] = level
                levels.extend([] for _ in range(level + 1 - len(levels)))
                levels[level].append(run)
            return level_of[run.name]

        for run in runs:
            add(run)
        return levels

    def keep(
        self,
        run: Run,
        config: Config,
        options: Sequence[str] = (),
        srun: Sequence[str] = (),
    ) -> list[str]:
        """Write the config of a run, and its command unless it is finished.

        Args:
            run (Run): The run.
            config (Config): What `prepare` gives.
            options (Sequence[str]): More for train.py.
            srun (Sequence[str]): Options of the srun that the command needs
                around it; empty where it needs none.

        Returns:
            list[str]: The command, what follows ``python``.

        Raises:
            LongTailError: If the run was begun with another config.
        """
        path = keep_config(self.config_path(run), config, self.folder(run))
        command = [
            str(self.train),
            str(path),
            *('--work-dir', str(self.folder(run))),
            *('--resume', 'auto'),
            *options,
        ]
        if self.metrics(run) is None:
            path = self.work_dir / 'commands' / f'{run.name}.sh'
            by = f', by {shlex.join(["srun", *srun, "bash", str(path)])}'
            write_atomic(
                path,
                f'# In {shlex.quote(os.getcwd())}{by if srun else ""}:\n'
                f'{shlex.join([sys.executable, *command])}\n',
            )
        return command


def last_checkpoint_name(config: Config) -> str | None:
    """Tell what the last checkpoint of a training will be called.

    Args:
        config (Config): With train_cfg and the checkpoint hook.

    Returns:
        str | None: None where only the training knows, such as for
        checkpoints every so many iterations of a training by epochs.
    """
    loop = config.get('train_cfg') or {}
    hook = (config.get('default_hooks') or {}).get('checkpoint') or {}
    if 'filename_tmpl' in hook or not hook.get('save_last', True):
        return None
    is_by_epoch = loop.get('by_epoch', 'Iter' not in loop.get('type', ''))
    if hook.get('by_epoch', True) != is_by_epoch:
        return None
    if is_by_epoch:
        return f'epoch_{loop["max_epochs"]}.pth'
    return f'iter_{loop["max_iters"]}.pth'
