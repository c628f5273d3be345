"""Two-stage training: a detector, then its classifier with another loss.

Every step leaves a record in the work directory, from which the same call
resumes after an interruption.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console

from mmdet_longtail.apis.config_writer import (
    check_base,
    merge_imports,
    write_second_stage,
)
from mmdet_longtail.apis.processes import (
    SUMMARY,
    TOOLS,
    duration,
    exclusive,
    keep_config,
    run_with_progress,
)
from mmdet_longtail.apis.runner import (
    failures_explained,
    last_checkpoint,
    load_config,
    merge_options,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.utils.tables import make_table

# Keys of a finished training that another one must not inherit.
OF_THE_RUN = ('work_dir', 'load_from', 'resume', 'launcher')

console = Console(highlight=False, markup=False, soft_wrap=True)


def train_two_stage(
    config: str | Path | None = None,
    *,
    base_checkpoint: str | Path | None = None,
    work_dir: str | Path = 'work_dirs/two_stage',
    seed: int | None = None,
    num_processes: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train both stages, evaluate them, and print APs and times.

    Finished steps are kept, and a training resumes from its last checkpoint.

    Args:
        config (str | Path, optional): Config of the second stage, whose
            ``base_config`` is the first. Defaults to Balanced Group Softmax
            on data and schedule of the config in base_checkpoint.
        base_checkpoint (str | Path, optional): A trained first stage: a
            file, an address or a work directory. Defaults to training it.
        work_dir (str | Path): Gets a directory per training and their
            configs. Defaults to 'work_dirs/two_stage'.
        seed (int, optional): Random seed of both stages. Defaults to that of
            the configs.
        num_processes (int, optional): Processes of each training and
            evaluation, started by torchrun. Defaults to one without it.
        cfg_options (Mapping, optional): Overrides for both stages.

    Returns:
        dict[str, Any]: The content of before_after.json: base_checkpoint,
        checkpoint, metrics (before and after by name) and seconds by step.

    Raises:
        LongTailError: If configs and checkpoint do not fit each other, differ
            from those of the interrupted call, or if a step fails.
    """
    work_dir = Path(work_dir)
    if base_checkpoint is not None:
        if Path(base_checkpoint).is_dir():
            base_checkpoint = last_checkpoint(base_checkpoint)
        base_checkpoint = str(base_checkpoint)
        Checkpoint.load(base_checkpoint)  # fails before any training
    elif config is None:
        raise LongTailError(
            'no CONFIG: give the config of a second stage, or a trained '
            'detector by --base-checkpoint'
        )
    with exclusive(work_dir) as lock:
        if config is None:
            config = _derive_stage(str(base_checkpoint), work_dir, cfg_options)
            cfg_options = None  # base.py contains them
        path = Path(config)
        base_path, base, stage = _read_stages(path, cfg_options, seed)
        stages = TwoStages(
            _Run('base', base_path.stem, base, work_dir),
            _Run('classifier', path.stem, stage, work_dir),
            base_checkpoint,
            num_processes,
            lock,
        )
        result = stages.run()
    _print_result(result, base_checkpoint is not None)
    console.print(f'{stages.result} has all metrics.')
    console.print(f'{result["checkpoint"]} is the detector.')
    return result


# -- the configs -----------------------------------------------------------


def _read_stages(
    path: Path, cfg_options: Mapping[str, Any] | None, seed: int | None
) -> tuple[Path, Config, Config]:
    """Read the path of the base, the base, and the second stage."""
    stage = load_config(path, cfg_options)
    if 'base_config' not in stage:
        raise LongTailError(
            f'{path}: no base_config, the config of the first stage relative '
            "to this one; write base_config = 'NAME.py', or train it by "
            'tools/train.py'
        )
    base_path = path.parent / stage.base_config
    if not base_path.is_file():
        raise LongTailError(
            f'{path}: base_config is {stage.base_config!r}, but there is no '
            f'{base_path}; it is a path relative to this config'
        )
    if base_path.stem == path.stem:
        raise LongTailError(
            f'{path}: has the name of its base_config {base_path}; give one '
            'of the files another name'
        )
    if not (stage.get('val_evaluator') or stage.get('test_evaluator')):
        raise LongTailError(
            f'{path}: no val_evaluator and no test_evaluator; add one to '
            'compare the two stages by'
        )
    base = load_config(base_path, cfg_options)
    if seed is not None:
        for config in (base, stage):
            config.randomness = dict(config.get('randomness', {}), seed=seed)
    return base_path, base, stage


def _config_before(base: Config, stage: Config, statistics: Path) -> Config:
    """Return the config that evaluates the base as the stage is evaluated.

    Args:
        base (Config): Has the model.
        stage (Config): Has data, evaluator and ``test_cfg`` of the model.
        statistics (Path): Counts of the stage's training set.
    """
    split = 'val' if stage.get('val_cfg') else 'test'
    config = copy.deepcopy(base)
    config.model.test_cfg = stage.model.test_cfg
    config.test_dataloader = stage[f'{split}_dataloader']
    config.test_evaluator = stage[f'{split}_evaluator']
    config.test_cfg = dict(type='TestLoop')
    config.default_hooks = dict(
        config.get('default_hooks', {}),
        class_statistics=dict(
            type='ClassStatisticsHook', class_statistics=str(statistics)
        ),
    )
    config.custom_imports = merge_imports(base, stage)
    return config


def _is_evaluated_alike(base: Config, stage: Config) -> bool:
    """Return whether the validations of both trainings can be compared."""
    return all(
        base.get(key) == stage.get(key)
        for key in ('val_cfg', 'val_dataloader', 'val_evaluator')
    ) and base.model.get('test_cfg') == stage.model.get('test_cfg')


def _count_classes(config: Config) -> ClassStatistics:
    """Count the training set of a config, or read the file of its hook."""
    hook = config.get('default_hooks', {}).get('class_statistics') or {}
    if hook.get('class_statistics'):
        return ClassStatistics.load(hook['class_statistics'])
    init_default_scope(config.get('default_scope', 'mmdet'))
    with failures_explained(config), quiet():
        dataset = DATASETS.build(config.train_dataloader.dataset)
        return ClassStatistics.from_dataset(dataset)


def _derive_stage(
    source: str, work_dir: Path, cfg_options: Mapping[str, Any] | None
) -> Path:
    """Write base.py and bags.py for a checkpoint, unless they exist."""
    config = Checkpoint.load(source).require_config(
        'give CONFIG, such as one that tools/make_config.py --base-config '
        'wrote'
    )
    merge_options(config, cfg_options, source)
    for key in OF_THE_RUN:
        config.pop(key, None)
    check_base(config, f'{source}, the config that it carries')
    base, stage = work_dir / 'base.py', work_dir / 'bags.py'
    text = config.pretty_text
    if base.exists() and base.read_text() != text:
        raise LongTailError(
            f'{base}: is not the config in {source} with these --cfg-options; '
            f'use another --work-dir, or give {stage} as CONFIG'
        )
    if not stage.exists():
        statistics = _count_classes(config)
        write_atomic(base, text)
        write_second_stage(
            stage,
            config,
            statistics,
            base=base.name,
            load_from=str(work_dir / stage.stem / 'start.pth'),
            tool='train_two_stage',
            source=source,
            command='python tools/train_two_stage.py --base-checkpoint '
            + source,
        )
        console.print(f'wrote {base} and {stage}')
    return stage


# -- the steps -------------------------------------------------------------


class _Run:
    """One of the two trainings, in a work directory of its own."""

    def __init__(
        self, step: str, name: str, config: Config, work_dir: Path
    ) -> None:
        self.step = step
        self.config = config
        self.work_dir = work_dir / name
        self.config_path = work_dir / 'configs' / f'{name}.py'
        self.finished = self.work_dir / 'finished.json'
        self.metrics = self.work_dir / 'metrics.json'


@dataclass
class TwoStages:
    """The steps of a two-stage training, each of which runs once.

    Args:
        base (_Run): The first stage.
        stage (_Run): The second stage.
        base_checkpoint (str | None): A trained first stage.
        num_processes (int | None): Processes of a training, by torchrun.
        lock (IO): Lock of the work directory, which the children inherit.
    """

    base: _Run
    stage: _Run
    base_checkpoint: str | None
    num_processes: int | None
    lock: IO

    def __post_init__(self) -> None:
        folder = self.stage.work_dir
        self.start = folder / 'start.pth'
        self.start_record = folder / 'start.json'
        self.statistics = folder / 'class_statistics.json'
        self.result = folder / 'before_after.json'
        path = self.stage.config_path
        self.config_before = path.with_name(f'{path.stem}_before.py')

    def run(self) -> dict[str, Any]:
        """Run the steps that are not finished, and return the result.

        Raises:
            LongTailError: If a step fails, or the work directory has runs of
                other configs or another base.
        """
        self._check_start()
        self._keep_configs()
        console.print(f'[1/4] base: {self.base.work_dir.name}')
        base_checkpoint = self.base_checkpoint
        if base_checkpoint is None:
            self._train(self.base)
            base_checkpoint = str(last_checkpoint(self.base.work_dir))
        else:
            console.print(f'      given, {base_checkpoint}')
        console.print('[2/4] its classifier in the layout of the next stage')
        if self.start_record.exists() and self.start.exists():
            console.print(f'      finished before, {self.start}')
        else:
            self._convert(base_checkpoint)
        console.print(f'[3/4] classifier: {self.stage.work_dir.name}')
        if not self.stage.finished.exists():
            config = shlex.quote(str(self.stage.config_path))
            folder = shlex.quote(str(self.stage.work_dir))
            console.print(
                '      to train it elsewhere, then this command again:\n'
                f'        python tools/train.py {config} --work-dir {folder}\n'
                f'        mim train mmdet {config} --work-dir {folder} '
                '--launcher slurm --partition NAME --gpus 8'
            )
        self._train(self.stage)
        console.print('[4/4] evaluation of both')
        if self.result.exists():
            console.print(f'      finished before, {self.result}')
        else:
            self._evaluate(base_checkpoint)
        return read_json(self.result)

    def _check_start(self) -> None:
        """Compare the base with the one that the second stage started from."""
        if not self.start_record.exists():
            return
        kept = read_json(self.start_record)
        checkpoint = self.base_checkpoint
        if checkpoint is None and self.base.finished.exists():
            checkpoint = str(last_checkpoint(self.base.work_dir))
        if checkpoint is None or kept['digest'] != _digest(checkpoint):
            raise LongTailError(
                f'{self.stage.work_dir} was started with the base '
                f'{kept["base_checkpoint"]}, not with '
                f'{checkpoint or self.base.work_dir}: delete the directory to '
                'train it again, or use another --work-dir'
            )

    def _keep_configs(self) -> None:
        """Write the configs, which must be those of the interrupted call."""
        base, stage = self.base, self.stage
        stage.config.load_from = str(self.start)
        if self.base_checkpoint is None:
            keep_config(base.config_path, base.config, base.work_dir)
        keep_config(stage.config_path, stage.config, stage.work_dir)
        before = _config_before(base.config, stage.config, self.statistics)
        keep_config(self.config_before, before, stage.work_dir)

    def _run_tool(
        self, what: str, folder: Path, name: str, *arguments: object
    ) -> float:
        """Run train.py or test.py in a work directory, and return seconds."""
        command = [TOOLS / name, *arguments, '--work-dir', folder]
        if self.num_processes is not None:
            torchrun = [TOOLS / 'torchrun.py', '--standalone']
            torchrun += ['--nproc-per-node', self.num_processes]
            command = [*torchrun, *command, '--launcher', 'pytorch']
        log = folder / 'log.txt'
        return run_with_progress(
            list(map(str, command)), what, log, console, self.lock
        )

    def _train(self, run: _Run) -> None:
        """Train a stage, unless it is finished."""
        if run.finished.exists():
            console.print(f'      finished before, {run.work_dir}')
            return
        is_resumed = (run.work_dir / 'last_checkpoint').exists()
        seconds: float | None = self._run_tool(
            f'training of the {run.step}',
            run.work_dir,
            *('train.py', run.config_path, '--resume', 'auto'),
        )
        if is_resumed:  # the time before the interruption is not known
            seconds = None
        _write_json(run.finished, {'seconds': seconds})
        taken = 'resumed' if seconds is None else duration(seconds)
        console.print(f'      {taken}, log in {run.work_dir}/log.txt')

    def _convert(self, base_checkpoint: str) -> None:
        """Convert the classifier of the base to the second stage's layout."""
        start = time.monotonic()
        statistics = _count_classes(self.stage.config)
        try:
            converted = convert_checkpoint(
                Checkpoint.load(base_checkpoint),
                self.stage.config,
                class_statistics=statistics,
            )
        except LongTailError as error:
            if base_checkpoint in str(error):
                raise
            raise LongTailError(f'{base_checkpoint}: {error}') from error
        statistics.save(self.statistics)
        converted.save(self.start)
        seconds = time.monotonic() - start
        record = {
            'base_checkpoint': base_checkpoint,
            'digest': _digest(base_checkpoint),
            'seconds': seconds,
        }
        _write_json(self.start_record, record)
        console.print(f'      {duration(seconds)}, {self.start}')

    def _evaluate(self, base_checkpoint: str) -> None:
        """Evaluate both stages, and write the result."""
        start = time.monotonic()
        base, stage = self.base, self.stage
        checkpoint = str(last_checkpoint(stage.work_dir))
        before = after = None
        if self.base_checkpoint is None and _is_evaluated_alike(
            base.config, stage.config
        ):
            before = _read_if_exists(base.metrics)
        if before is None:
            before = self._test(self.config_before, base_checkpoint, 'before')
        after = _read_if_exists(stage.metrics)
        if after is None:
            after = self._test(stage.config_path, checkpoint, 'after')
        seconds = {
            'base': None,
            'conversion': read_json(self.start_record)['seconds'],
            'classifier': read_json(stage.finished)['seconds'],
            'evaluation': time.monotonic() - start,
        }
        if self.base_checkpoint is None:
            seconds['base'] = read_json(base.finished)['seconds']
        content = {
            'base_checkpoint': base_checkpoint,
            'checkpoint': checkpoint,
            'metrics': {
                key: {'before': before.get(key), 'after': after.get(key)}
                for key in dict.fromkeys([*before, *after])
            },
            'seconds': seconds,
        }
        _write_json(self.result, content)

    def _test(
        self, config: Path, checkpoint: str, name: str
    ) -> dict[str, Any]:
        """Evaluate a checkpoint, unless that is finished."""
        out = self.stage.work_dir / f'{name}.json'
        if not out.exists():
            self._run_tool(
                f'evaluation of {checkpoint}',
                self.stage.work_dir / name,
                *('test.py', config, checkpoint, '--json', out),
            )
        return read_json(out)['metrics']


def _digest(path: str) -> str:
    """Return the SHA-256 of a checkpoint file, or its address."""
    if '://' in path:
        return path
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _read_if_exists(path: Path) -> Any:
    return read_json(path) if path.exists() else None


def _write_json(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content, indent=1) + '\n')


def _print_result(result: Mapping[str, Any], is_base_given: bool) -> None:
    """Print the APs before and after in per cent, and the times."""
    rows = []
    for key, pair in result['metrics'].items():
        if not SUMMARY.fullmatch(key):
            continue
        # The mean over no class is -1.
        before, after = (
            math.nan if pair[name] in (None, -1) else 100 * pair[name]
            for name in ('before', 'after')
        )
        name = key.rpartition('/')[2].replace('_', ' ', 1)
        cells = f'{before:.1f} {after:.1f} {after - before:+.1f}'.split()
        rows.append(
            [name, *('-' if 'nan' in cell else cell for cell in cells)]
        )
    headings = ('', 'before', 'after', 'difference')
    console.print(make_table(headings, rows, 'AP in %'))
    for step, seconds in result['seconds'].items():
        taken = 'not known, it was interrupted'
        if seconds is not None:
            taken = duration(seconds)
        elif step == 'base' and is_base_given:
            taken = 'given'
        console.print(f'  {step:12} {taken}')
