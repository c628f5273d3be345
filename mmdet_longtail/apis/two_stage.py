"""Two-stage training: a detector, then its classifier with another loss.

Every step leaves a record in the work directory, from which the same call
resumes after an interruption.
"""

import copy
import itertools
import json
import math
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console

from mmdet_longtail.apis.before_after import compare_stages, find_evaluator
from mmdet_longtail.apis.config_writer import check_base, write_second_stage
from mmdet_longtail.apis.processes import (
    SUMMARY,
    TOOLS,
    duration,
    exclusive,
    keep_config,
    run_with_progress,
)
from mmdet_longtail.apis.runner import (
    NO_STAGE,
    add_feature_cache,
    checkpoint_digest,
    count_classes,
    last_checkpoint,
    load_config,
    merge_imports,
    merge_options,
)
from mmdet_longtail.apis.search_lr import LearningRateSearch
from mmdet_longtail.apis.sweep import LEARNING_RATE
from mmdet_longtail.engine.hooks import TrainOnlyHook
from mmdet_longtail.engine.hooks.train_only_hook import matching_names
from mmdet_longtail.errors import check, errors_of
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import read_record, write_atomic
from mmdet_longtail.utils.registry import is_type
from mmdet_longtail.utils.tables import format_cells, make_table

# Keys of a finished training that another one must not inherit.
OF_THE_RUN = ('work_dir', 'load_from', 'resume', 'launcher')
FINISHED_BEFORE = '      finished before, '
# Share of the rare objects without a box that explains an AP by itself.
MANY_UNREACHED = 0.3

console = Console(highlight=False, markup=False, soft_wrap=True)


def train_two_stage(
    config: str | Path | None = None,
    *,
    base_checkpoint: str | Path | None = None,
    work_dir: str | Path = 'work_dirs/two_stage',
    seed: int | None = None,
    num_processes: int | None = None,
    cached: bool = False,
    search_lr: Sequence[float] | None = None,
    held_out: float = 0.2,
    cfg_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train both stages, evaluate them, and print APs and times.

    Finished steps are kept, and a training resumes from its last checkpoint.
    The arguments are the options of ``tools/train_two_stage.py``, whose help
    describes them.

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
        Checkpoint.load(base_checkpoint).check_finite()  # before training
    check(
        config or base_checkpoint,
        'no CONFIG: give the config of a second stage, or a trained detector '
        'by --base-checkpoint',
    )
    check(
        not search_lr or num_processes in (None, 1),
        '--search-lr: its trainings have one process, so their batches are '
        'smaller than those of --nproc-per-node; search in one process, then '
        f'give the result by --cfg-options {LEARNING_RATE}=LR',
    )
    with exclusive(work_dir) as lock:
        if config is None:
            config = _derive_stage(str(base_checkpoint), work_dir, cfg_options)
            cfg_options = None  # base.py contains them
        base, stage = _read_stages(
            Path(config), work_dir, cfg_options, seed, cached
        )
        stages = _TwoStages(
            base,
            stage,
            base_checkpoint,
            num_processes,
            lock,
            tuple(search_lr or ()),
            held_out,
        )
        stages.run()
    result = read_record(stages.result, 'checkpoint', 'metrics', 'seconds')
    _print_result(result, base_checkpoint is not None)
    first = base_checkpoint or base.folder
    if '://' not in str(first):
        console.print(
            f'next: longtail report {first} {stage.folder} --out report.html'
        )
    console.print(f'{stages.result} has all metrics.')
    console.print(f'{result["checkpoint"]} is the detector.')
    return result


# -- the configs -----------------------------------------------------------


class _Stage:
    """A training: its config and its work directory."""

    def __init__(self, path: Path, config: Config, work_dir: Path) -> None:
        self.config = config
        self.config_path = work_dir / 'configs' / f'{path.stem}.py'
        self.folder = work_dir / path.stem
        self.finished = self.folder / 'finished.json'


def _read_stages(
    path: Path,
    work_dir: Path,
    cfg_options: Mapping[str, Any] | None,
    seed: int | None,
    cached: bool,
) -> tuple[_Stage, _Stage]:
    """Read the config of the second stage, and that of its base."""
    stage = load_config(path, cfg_options)
    check(
        'base_config' in stage,
        f'{path}: no base_config, the config of the first stage relative to '
        "this one; write base_config = 'NAME.py', or train it by "
        'tools/train.py',
    )
    base_path = path.parent / stage.base_config
    check(
        base_path.stem != path.stem,
        f'{path}: has the name of its base_config {base_path}; give one of '
        'the files another name',
    )
    check(
        stage.get('val_evaluator') or stage.get('test_evaluator'),
        f'{path}: no val_evaluator and no test_evaluator; add one to compare '
        'the two stages by',
    )
    with errors_of(f'{path}: base_config'):
        base = load_config(base_path, cfg_options)
    if cached:
        add_feature_cache(base)
        check(
            add_feature_cache(stage),
            f'{path}: --cached: {NO_STAGE}',
        )
    if seed is not None:
        for config in (base, stage):
            config.randomness = dict(config.get('randomness', {}), seed=seed)
    return _Stage(base_path, base, work_dir), _Stage(path, stage, work_dir)


def _evaluators(stage: Config) -> Any:
    """Return the evaluators by which both stages are compared."""
    return stage[f'{"val" if stage.get("val_cfg") else "test"}_evaluator']


def _test_config(config: Config, stage: Config, statistics: Path) -> Config:
    """Return the config that evaluates a stage as the second is evaluated."""
    split = 'val' if stage.get('val_cfg') else 'test'
    base, config = config, copy.deepcopy(config)
    config.model.test_cfg = stage.model.test_cfg
    config.test_dataloader = stage[f'{split}_dataloader']
    config.test_evaluator = _evaluators(stage)
    config.test_cfg = dict(type='TestLoop')
    config.default_hooks = dict(
        config.get('default_hooks', {}),
        class_statistics=dict(
            type='ClassStatisticsHook', class_statistics=str(statistics)
        ),
    )
    config.custom_imports = merge_imports(base, stage)
    return config


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
    check_base(config, f'{source}, the config in it')
    base, stage = work_dir / 'base.py', work_dir / 'bags.py'
    text = config.pretty_text
    check(
        not base.exists() or base.read_text() == text,
        f'{base}: is not the config in {source} with these --cfg-options; '
        f'use another --work-dir, or give {stage} as CONFIG',
    )
    if not stage.exists():
        statistics = count_classes(config)
        write_atomic(base, text)
        write_second_stage(
            stage,
            config,
            statistics,
            base=base.name,
            load_from=str(work_dir / stage.stem / 'start.pth'),
            source=source,
        )
        console.print(f'wrote {base} and {stage}')
    return stage


# -- the steps -------------------------------------------------------------


@dataclass
class _TwoStages:
    """The steps of a two-stage training, each of which runs once.

    A step is finished when its record exists. Children inherit the lock of
    the work directory.
    """

    base: _Stage
    stage: _Stage
    given_base: str | None
    num_processes: int | None
    lock: IO
    rates: tuple[float, ...] = ()
    held_out: float = 0.2

    def __post_init__(self) -> None:
        folder, path = self.stage.folder, self.stage.config_path
        self.start = folder / 'start.pth'
        self.start_record = folder / 'start.json'
        self.statistics = folder / 'class_statistics.json'
        self.rate_record = folder / 'search_lr.json'
        self.result = folder / 'before_after.json'
        self.config_before = path.with_name(f'{path.stem}_before.py')
        self.config_after = path.with_name(f'{path.stem}_after.py')

    def run(self) -> None:
        """Run the steps that are not finished."""
        base, stage = self.base, self.stage
        self._check_start()
        self._check_search()
        if self.given_base is None and not base.finished.exists():
            self._check_layers_of_base()
        self._keep_configs()
        console.print(f'[1/4] base: {base.folder.name}')
        seconds: dict[str, float | None] = {'base': None}
        checkpoint = self.given_base
        if checkpoint is None:
            seconds['base'] = self._train(base, 'base')
            checkpoint = str(last_checkpoint(base.folder))
        else:
            console.print(f'      given, {checkpoint}')
        console.print('[2/4] conversion of its classifier for the next stage')
        seconds['conversion'] = _once(
            self.start_record, lambda: self._convert(checkpoint)
        )
        console.print(f'[3/4] classifier: {stage.folder.name}')
        options: list[str] = []
        if self.rates:
            seconds['search'] = _once(self.rate_record, self._search_rate)
            rate = read_record(self.rate_record, 'learning_rate')
            options = [
                '--cfg-options',
                f'{LEARNING_RATE}={rate["learning_rate"]:g}',
            ]
        if not stage.finished.exists():
            words = [stage.config_path, '--work-dir', stage.folder, *options]
            command = shlex.join(map(str, words))
            console.print(
                '      to train it elsewhere, run one of these lines, then '
                'repeat this command:\n'
                f'        longtail train {command}\n'
                f'        mim train mmdet {command} '
                '--launcher slurm --partition NAME --gpus 8'
            )
        seconds['classifier'] = self._train(stage, 'classifier', *options)
        console.print('[4/4] evaluation of both')
        if self.result.exists():
            console.print(f'{FINISHED_BEFORE}{self.result}')
        else:
            self._evaluate(checkpoint, seconds)

    def _check_start(self) -> None:
        """Compare the base with the one that the second stage started from."""
        if not self.start_record.exists():
            return
        kept = read_record(self.start_record, 'base_checkpoint', 'digest')
        checkpoint = self.given_base
        if checkpoint is None and self.base.finished.exists():
            checkpoint = str(last_checkpoint(self.base.folder))
        check(
            checkpoint and kept['digest'] == checkpoint_digest(checkpoint),
            f'{self.stage.folder} was started with the base '
            f'{kept["base_checkpoint"]}, not with '
            f'{checkpoint or self.base.folder}: delete the directory to '
            'train it again, or use another --work-dir',
        )

    def _check_search(self) -> None:
        """Compare the search of a learning rate with the one before."""
        kept = None
        if self.rate_record.exists():
            record = read_record(self.rate_record, 'rates', 'held_out')
            kept = (record['rates'], record['held_out'])
        wanted = (list(self.rates), self.held_out) if self.rates else None
        is_started = (self.stage.folder / 'last_checkpoint').exists()
        check(
            kept == wanted or not (kept or is_started),
            f'{self.stage.folder} was started with another --search-lr or '
            '--held-out: delete the directory to train it again, or use '
            'another --work-dir',
        )

    def _search_rate(self) -> dict[str, Any]:
        """Find the best learning rate of the second stage."""
        search = LearningRateSearch(
            self.stage.folder,
            [str(self.stage.config_path)],
            self.rates,
            seed=self.stage.config.get('randomness', {}).get('seed') or 0,
            held_out=self.held_out,
            cached='feature_cache' in self.stage.config.default_hooks,
            base_checkpoint=self.start,
        )
        (rate,) = search.choose(search.sweep.train()).values()
        return {
            'learning_rate': rate,
            'rates': self.rates,
            'held_out': self.held_out,
        }

    def _check_layers_of_base(self) -> None:
        """Compare the layers of both configs before a training begins."""
        model = _build(self.base.config)
        if model is not None:
            path = str(self.base.config_path)
            self._check_layers(Checkpoint(model.state_dict(), source=path))

    def _check_layers(self, base: Checkpoint) -> None:
        """Compare a base with the second stage, except for the classifier.

        Raises:
            LongTailError: If a weight has another shape, or lacks and would
                stay random because it is frozen.
        """
        model = _build(self.stage.config)
        if model is None:
            return
        heads = tuple(f'{name}.fc_cls.' for name in classifier_heads(model))
        shared = {
            name: value
            for name, value in model.named_parameters()
            if not name.startswith(heads)
        }
        with errors_of(
            f'{self.stage.config_path.stem}: the base does not fit'
        ):
            base.check_shapes(shared.items())
            trained = _trained_names(self.stage.config, shared)
            known = base.weights.keys() | trained
            lost = [name for name in shared if name not in known]
            check(
                not lost,
                f'{base.source}: lacks {len(lost)} weights that are frozen '
                f'and would stay random, such as {"".join(lost[:1])}; take a '
                'base with these layers, or train them',
            )

    def _keep_configs(self) -> None:
        """Write the configs, which must be those of the interrupted call."""
        base, stage = self.base, self.stage
        stage.config.load_from = str(self.start)
        if self.given_base is None:
            keep_config(base.config_path, base.config, base.folder)
        keep_config(stage.config_path, stage.config, stage.folder)
        for path, config in (
            (self.config_before, base.config),
            (self.config_after, stage.config),
        ):
            config = _test_config(config, stage.config, self.statistics)
            keep_config(path, config, stage.folder)

    def _run_tool(
        self, what: str, folder: Path, name: str, *arguments: object
    ) -> None:
        """Run train.py or test.py, with a folder as its work directory."""
        command = [TOOLS / name, *arguments, '--work-dir', folder]
        if self.num_processes is not None:
            torchrun = [TOOLS / 'torchrun.py', '--standalone']
            processes = ['--nproc-per-node', self.num_processes]
            command = [*torchrun, *processes, *command, '--launcher=pytorch']
        words = list(map(str, command))
        log = folder / 'log.txt'
        console.print(f'      {what}, log in {log}')
        run_with_progress(words, what, log, console, self.lock)

    def _train(self, stage: _Stage, name: str, *options: str) -> float | None:
        """Train a stage once, and return its seconds if they are known."""
        what = f'training of the {name}'
        arguments = (stage.config_path, '--resume', 'auto', *options)
        return _once(
            stage.finished,
            lambda: self._run_tool(what, stage.folder, 'train.py', *arguments),
            is_resumed=(stage.folder / 'last_checkpoint').exists(),
        )

    def _convert(self, base_checkpoint: str) -> dict[str, Any]:
        """Convert the classifier of the base to the second stage's layout."""
        statistics = count_classes(self.stage.config)
        base = Checkpoint.load(base_checkpoint)
        with errors_of(base_checkpoint):
            converted = convert_checkpoint(
                base, self.stage.config, class_statistics=statistics
            )
        self._check_layers(converted)
        statistics.save(self.statistics)
        converted.save(self.start)
        return {
            'base_checkpoint': base_checkpoint,
            'digest': checkpoint_digest(base_checkpoint),
        }

    def _evaluate(
        self, base_checkpoint: str, seconds: Mapping[str, float | None]
    ) -> None:
        """Evaluate the base as the stage was, and write the result."""
        start, stage = time.monotonic(), self.stage
        checkpoint = str(last_checkpoint(stage.folder))
        evaluator = find_evaluator(_evaluators(stage.config))
        before, after = (
            self._test(name, config, tested, evaluator is not None)
            for name, config, tested in (
                ('before', self.config_before, base_checkpoint),
                ('after', self.config_after, checkpoint),
            )
        )
        metrics = {
            key: {'before': before.get(key), 'after': after.get(key)}
            for key in dict.fromkeys([*before, *after])
        }
        compared: dict[str, Any] = {}
        if self.rates:
            record = read_record(self.rate_record)
            compared['learning_rate'] = record['learning_rate']
        if evaluator is not None:
            statistics = ClassStatistics.load(self.statistics)
            compared |= compare_stages(
                evaluator, stage.folder, statistics, metrics
            )
        content = {
            'base_checkpoint': base_checkpoint,
            'checkpoint': checkpoint,
            'metrics': metrics,
            **compared,
            'seconds': {**seconds, 'evaluation': time.monotonic() - start},
        }
        _write_json(self.result, content)

    def _test(
        self, name: str, config: Path, checkpoint: str, writes: bool
    ) -> dict[str, Any]:
        """Evaluate a checkpoint once, and write its detections if wanted."""
        out = self.stage.folder / f'{name}.json'
        results = ('--out', out.with_suffix('')) if writes else ()
        if not out.exists():
            self._run_tool(
                f'evaluation of {checkpoint}',
                self.stage.folder / name,
                'test.py',
                config,
                checkpoint,
                *('--json', out, *results),
            )
        return read_record(out, 'metrics')['metrics']


def _build(config: Config) -> Any:
    """Build the detector of a config; None if its training will explain it."""
    init_default_scope(config.get('default_scope', 'mmdet'))
    try:
        with quiet():  # Detectors of mmdet change their config.
            return MODELS.build(copy.deepcopy(config.model))
    except Exception:  # of any kind: it may be a user's program
        return None


def _trained_names(config: Config, names: Collection[str]) -> set[str]:
    """Return which parameters a config does not freeze."""
    hooks = [*(config.get('custom_hooks') or ())]
    hooks += config.get('default_hooks', {}).values()
    only = [hook for hook in hooks if is_type(HOOKS, hook, TrainOnlyHook)]
    if not only:
        return {*names}
    patterns = itertools.chain(*(hook['trainable'] for hook in only))
    return {n for pattern in patterns for n in matching_names(names, pattern)}


def _once(
    record: Path, step: Callable[[], Any], is_resumed: bool = False
) -> float | None:
    """Run a step that has no record, and return its seconds if known.

    The time before an interruption is not known.
    """
    if record.exists():
        console.print(f'{FINISHED_BEFORE}{record.parent}')
        return read_record(record, 'seconds')['seconds']
    start = time.monotonic()
    content = step() or {}
    seconds = None if is_resumed else time.monotonic() - start
    _write_json(record, {'seconds': seconds, **content})
    taken = 'resumed' if seconds is None else duration(seconds)
    console.print(f'      {taken}, in {record.parent}')
    return seconds


def _write_json(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content, indent=1) + '\n')


def _print_result(result: Mapping[str, Any], is_base_given: bool) -> None:
    """Print the APs before and after in per cent, and the times."""
    rows = []
    intervals = result.get('intervals', {})
    for key, pair in result['metrics'].items():
        if not SUMMARY.fullmatch(key):
            continue
        # The mean over no class is -1.
        before, after = (
            math.nan if pair[name] in (None, -1) else 100 * pair[name]
            for name in ('before', 'after')
        )
        name = key.rpartition('/')[2].replace('_', ' ', 1)
        cells = format_cells([before, after], '.1f', '-')
        cells += format_cells([after - before], '+.1f', '-')
        if intervals:
            ends = intervals.get(key, {}).get('difference')
            cells.append(
                '{:+.1f} to {:+.1f}'.format(*(100 * x for x in ends))
                if ends
                else '-'
            )
        rows.append([name, *cells])
    headings = ['', 'before', 'after', 'difference']
    if intervals:
        headings.append('its interval')
    console.print(make_table(headings, rows, 'AP in %'))
    if 'learning_rate' in result:
        console.print(
            f'  The learning rate is {result["learning_rate"]:g}, the best on '
            'held-out training images.'
        )
    for name, warning in result.get('warnings', {}).items():
        console.print(f'  {name}: {warning}')
    if intervals and not any(
        low > 0 or high < 0
        for low, high in (pair['difference'] for pair in intervals.values())
    ):
        console.print('  No difference is larger than its interval.')
        _print_reason(result.get('rare_objects', {}))
    for step, seconds in result['seconds'].items():
        is_given = step == 'base' and is_base_given
        taken = 'given' if is_given else 'unknown, it was interrupted'
        if seconds is not None:
            taken = duration(seconds)
        console.print(f'  {step:12} {taken}')


def _print_reason(rare: Mapping[str, int]) -> None:
    """Print why a classifier may not help: boxes that the base lacks."""
    if not rare.get('all'):
        return
    share = rare['unreached'] / rare['all']
    text = (
        f'  {share:.0%} of the {rare["all"]:,} rare objects have no box of '
        'the base with an IoU of 0.5, of any class'
    )
    if share >= MANY_UNREACHED:
        text += ': no classifier can find them; train the base longer'
    console.print(f'{text}.')
