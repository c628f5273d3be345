r"""Train a detector, then its classifier again, and compare the two.

    python tools/train_two_stage.py \
        configs/glyphs/faster-rcnn_r18_fpn_bags-classifier_glyphs.py
    python tools/train_two_stage.py --base-checkpoint work_dirs/mine

The first command trains the base_config of CONFIG, gives its classifier the
layout that CONFIG needs, trains CONFIG from there and evaluates both. With
--base-checkpoint the base is a detector that is trained already. Without
CONFIG, the second stage is Balanced Group Softmax on the data and the
schedule of the config in that checkpoint. The same command goes on after an
interruption: what is finished is kept.
"""

import argparse
import copy
import hashlib
import json
import math
import os
import shlex
import signal
import time
from pathlib import Path
from typing import IO, Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.apis.config_writer import (
    NAMES,
    check_model,
    check_roi_head,
    classifier_pattern,
    code,
    comment,
    spell_loss,
    spell_roi_head,
    spell_train_only,
    tidy,
)
from mmdet_longtail.apis.processes import (
    SUMMARY,
    duration,
    exclusive,
    keep_config,
    run_with_progress,
)
from mmdet_longtail.apis.runner import (
    failures_explained,
    last_checkpoint,
    load_config,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_cfg_options
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import read_json, write_atomic

TOOLS = Path(__file__).resolve().parent
STEPS = ('base', 'conversion', 'classifier', 'evaluation')
# What a training leaves in its config and another one must not take over.
OF_THE_RUN = ('work_dir', 'load_from', 'resume', 'launcher')
COUNTED_METRICS = ('CocoMetric', 'LVISMetric')

console = Console(highlight=False, markup=False, soft_wrap=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config of the second stage, with a base_config; may be left '
        'out when --base-checkpoint is given',
    )
    parser.add_argument(
        '--base-checkpoint',
        metavar='FILE',
        help='a trained first stage: a file, an address, or the work '
        'directory of a training (default: train base_config)',
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/two_stage',
        help='gets a directory for each training, and their configs '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, help="of both stages (default: the configs')"
    )
    parser.add_argument(
        '--nproc-per-node',
        type=int,
        metavar='N',
        help='train and evaluate in N processes, by torchrun',
    )
    add_cfg_options(parser, 'overrides for both stages')
    return parser.parse_args()


# -- the configs -----------------------------------------------------------


def read_configs(
    path: Path, cfg_options: dict[str, Any] | None, seed: int | None
) -> tuple[str, Config, Config]:
    """Read the configs of both stages.

    Returns:
        tuple[str, Config, Config]: Name of the base, the base, and the
        second stage.

    Raises:
        LongTailError: If there is none, or they cannot be two stages.
    """
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
    if not any(stage.get(f'{split}_evaluator') for split in ('val', 'test')):
        raise LongTailError(
            f'{path}: no val_evaluator and no test_evaluator; add one that '
            'the two stages can be compared by'
        )
    base = load_config(base_path, cfg_options)
    if seed is not None:
        for config in (base, stage):
            config.randomness = dict(config.get('randomness', {}), seed=seed)
    return base_path.stem, base, stage


def split_of(stage: Config) -> str:
    """Name the data that the two stages are compared on."""
    return 'val' if stage.get('val_cfg') else 'test'


def before_config(base: Config, stage: Config, statistics: Path) -> Config:
    """Make the config that evaluates the base as the stage is evaluated.

    Args:
        base (Config): Whose model it is.
        stage (Config): Whose data, evaluator and ``test_cfg`` it takes.
        statistics (Path): Counts of the stage's training set.
    """
    split = split_of(stage)
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
    imports = [
        module
        for one in (base, stage)
        for module in (one.get('custom_imports') or {}).get('imports', ())
    ]
    config.custom_imports = dict(
        imports=list(dict.fromkeys([*imports, 'mmdet_longtail'])),
        allow_failed_imports=False,
    )
    return config


def is_evaluated_alike(base: Config, stage: Config) -> bool:
    """Tell if the validations of both trainings can be compared."""
    return all(
        base.get(key) == stage.get(key)
        for key in ('val_cfg', 'val_dataloader', 'val_evaluator')
    ) and base.model.get('test_cfg') == stage.model.get('test_cfg')


def count_classes(stage: Config) -> ClassStatistics:
    """Count the training set of the second stage.

    Raises:
        LongTailError: If it cannot be read.
    """
    hook = stage.get('default_hooks', {}).get('class_statistics') or {}
    if hook.get('class_statistics'):
        return ClassStatistics.load(hook['class_statistics'])
    init_default_scope(stage.get('default_scope', 'mmdet'))
    # pycocotools and mmengine say what they read.
    with failures_explained(stage), quiet():
        dataset = DATASETS.build(stage.train_dataloader.dataset)
        return ClassStatistics.from_dataset(dataset)


# -- a second stage for any checkpoint -------------------------------------


def carried_config(path: str, cfg_options: dict[str, Any] | None) -> Config:
    """Read the config in a checkpoint, without what was of its run.

    Raises:
        LongTailError: If there is none, or a second stage cannot be made
            from it.
    """
    config = Checkpoint.load(path).require_config(
        'give CONFIG, such as one that tools/make_config.py --base-config '
        'wrote'
    )
    try:
        config.merge_from_dict(dict(cfg_options or {}))
    except (KeyError, TypeError, IndexError) as error:
        raise LongTailError(
            f'{path}: cfg-options do not fit the config that it carries '
            f'({one_line(error)}); give CONFIG'
        ) from error
    for key in OF_THE_RUN:
        config.pop(key, None)
    check_roi_head(config, path)
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        if not config.get(key):
            raise LongTailError(
                f'{path}: the config that it carries has no {key}; give CONFIG'
            )
    return config


def with_groups(evaluator: Any) -> Any:
    """Replace COCO's and LVIS's metric by one that knows the groups."""
    if isinstance(evaluator, list | tuple):
        return [with_groups(metric) for metric in evaluator]
    if evaluator['type'] not in COUNTED_METRICS:
        return evaluator
    metrics = evaluator.get('metric', 'bbox')
    metrics = [metrics] if isinstance(metrics, str) else metrics
    kept = {
        key: evaluator[key]
        for key in ('ann_file', 'backend_args')
        if evaluator.get(key)
    }
    return dict(
        type='FrequencyGroupMetric',
        metric=[name for name in metrics if name in ('bbox', 'segm')]
        or ['bbox'],
        **kept,
    )


def spell_evaluator(config: Config, split: str) -> list[str]:
    """Spell the evaluator, if it is not what it was."""
    evaluator = config.get(f'{split}_evaluator')
    if not evaluator or with_groups(evaluator) == evaluator:
        return []
    changed = with_groups(evaluator)
    if isinstance(changed, list):
        return [f'{split}_evaluator = {[dict(one) for one in changed]!r}']
    items = {key: repr(value) for key, value in changed.items()}
    return [f'{split}_evaluator = {code(_delete_="True", **items)}']


def spell_stage(
    source: str, config: Config, statistics: ClassStatistics, path: Path
) -> str:
    """Spell a second stage of Balanced Group Softmax.

    Args:
        source (str): The checkpoint, for the reader.
        config (Config): Of the first stage.
        statistics (ClassStatistics): Counts of the training set.
        path (Path): Where the text goes, beside base.py.
    """
    loss, reason = spell_loss('bags', statistics)
    evaluators = [
        line
        for split in ('val', 'test')
        for line in spell_evaluator(config, split)
    ]
    hooks = {
        'class_statistics': "dict(type='ClassStatisticsHook')",
        'train_only': spell_train_only(config),
    }
    saving = config.get('default_hooks', {}).get('checkpoint') or {}
    if saving.get('save_best') and evaluators:
        # COCO's keys, which the base saves by, are not there any more.
        hooks['checkpoint'] = code(
            save_best="'frequency_group/bbox_AP'", rule="'greater'"
        )
    imports = config.get('custom_imports') or {}
    names = dict.fromkeys([*imports.get('imports', ()), 'mmdet_longtail'])
    failing = imports.get('allow_failed_imports', False)
    return tidy(
        [
            comment(
                f'{NAMES["bags"]}. Written by tools/train_two_stage.py for '
                f'{source} ({statistics.num_classes} classes, '
                f'{statistics.num_images} images).'
            ),
            f'# A second stage: {classifier_pattern(config)} learns, the '
            'rest stays as it is.',
            "_base_ = 'base.py'",
            "base_config = 'base.py'",
            f'load_from = {str(path.with_suffix("") / "start.pth")!r}',
            f'custom_imports = dict(imports={list(names)!r}, '
            f'allow_failed_imports={failing})',
            f'default_hooks = {code(**hooks)}',
            '',
            f'num_classes = {statistics.num_classes}',
            comment(reason),
            'model = '
            + code(
                roi_head=spell_roi_head(config.model.roi_head, loss),
                test_cfg='dict(rcnn=dict(score_thr=1e-4, max_per_img=300))',
            ),
            *evaluators,
        ]
    )


def derive_stage(
    source: str, work_dir: Path, cfg_options: dict[str, Any] | None
) -> Path:
    """Write base.py and bags.py for a checkpoint, unless they are there.

    Returns:
        Path: bags.py.

    Raises:
        LongTailError: If the checkpoint cannot have a second stage, or those
            in the work directory are of other ones.
    """
    config = carried_config(source, cfg_options)
    base, stage = work_dir / 'base.py', work_dir / 'bags.py'
    text = config.pretty_text
    if base.exists() and base.read_text() != text:
        raise LongTailError(
            f'{base}: is not the config in {source} with these --cfg-options; '
            f'take another --work-dir, or give {stage} as CONFIG'
        )
    if stage.exists():
        return stage
    statistics = count_classes(config)
    write_atomic(base, text)
    # Configs are found beside each other, and are known by their ending.
    unfinished = stage.with_name('unfinished_bags.py')
    try:
        unfinished.write_text(spell_stage(source, config, statistics, stage))
        check_model(unfinished)
        os.replace(unfinished, stage)
    finally:
        unfinished.unlink(missing_ok=True)
    console.print(f'wrote {base} and {stage}')
    return stage


# -- the checkpoint --------------------------------------------------------


def digest(path: str) -> str:
    """Tell a checkpoint from another: its content, or its address."""
    if '://' in path:
        return path
    content = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            content.update(chunk)
    return content.hexdigest()


# -- the steps -------------------------------------------------------------


class TwoStages:
    """Does the steps that are not done yet.

    Args:
        work_dir (Path): Where the runs go.
        base_name (str): Name of the base's run.
        base (Config): Config of the first stage.
        stage_name (str): Name of the second stage's run.
        stage (Config): Config of the second stage.
        given (str | None): A trained base.
        num_processes (int | None): Processes of a training, by torchrun.
        lock (IO): Kept open by every training, see `exclusive`.
    """

    def __init__(
        self,
        work_dir: Path,
        base_name: str,
        base: Config,
        stage_name: str,
        stage: Config,
        given: str | None,
        num_processes: int | None,
        lock: IO,
    ) -> None:
        self.work_dir = work_dir
        self.base = base
        self.stage = stage
        self.given = given
        self.num_processes = num_processes
        self.lock = lock
        self.base_dir = work_dir / base_name
        self.stage_dir = work_dir / stage_name
        self.start = self.stage_dir / 'start.pth'
        self.start_record = self.stage_dir / 'start.json'
        self.statistics = self.stage_dir / 'class_statistics.json'
        self.result = self.stage_dir / 'before_after.json'
        self.seconds: dict[str, float | None] = {}
        stage.load_from = str(self.start)
        self.check_start()
        if given is None:
            self.base_config = self.keep(base_name, base, self.base_dir)
        self.stage_config = self.keep(stage_name, stage, self.stage_dir)
        self.before_config = self.keep(
            f'{stage_name}_before',
            before_config(base, stage, self.statistics),
            self.stage_dir,
        )

    def keep(self, name: str, config: Config, folder: Path) -> Path:
        """Write a config, or find the same from before."""
        path = self.work_dir / 'configs' / f'{name}.py'
        return keep_config(path, config, folder)

    def check_start(self) -> None:
        """Compare the base with the one that the second stage began with.

        Raises:
            LongTailError: If it is another one.
        """
        if not self.start_record.exists():
            return
        kept = read_json(self.start_record)
        checkpoint = self.given
        if checkpoint is None and (self.base_dir / 'finished.json').exists():
            checkpoint = str(last_checkpoint(self.base_dir))
        if checkpoint is None or kept['digest'] != digest(checkpoint):
            raise LongTailError(
                f'{self.stage_dir} was begun with the base '
                f'{kept["base_checkpoint"]}, not with '
                f'{checkpoint or self.base_dir}: delete the directory to '
                'train it again, or take another --work-dir'
            )

    def run_tool(
        self, name: str, arguments: list[str], what: str, folder: Path
    ) -> None:
        """Run train.py or test.py, and show how far it is.

        Raises:
            LongTailError: If it fails.
        """
        command = [str(TOOLS / name), *arguments]
        if self.num_processes is not None:
            command = [
                str(TOOLS / 'torchrun.py'),
                '--standalone',
                '--nproc-per-node',
                str(self.num_processes),
                *command,
                '--launcher',
                'pytorch',
            ]
        run_with_progress(
            command,
            what,
            folder / 'log.txt',
            console,
            pass_fds=[self.lock.fileno()],
        )

    def train(self, what: str, config: Path, folder: Path) -> None:
        """Train a stage unless it is finished.

        Raises:
            LongTailError: If it fails.
        """
        record = folder / 'finished.json'
        if not record.exists():
            start = time.monotonic()
            is_resumed = (folder / 'last_checkpoint').exists()
            self.run_tool(
                'train.py',
                [
                    str(config),
                    '--work-dir',
                    str(folder),
                    '--resume',
                    'auto',
                ],
                f'training of the {what}',
                folder,
            )
            # The time before an interruption is not known.
            seconds = None if is_resumed else time.monotonic() - start
            write_atomic(record, json.dumps({'seconds': seconds}) + '\n')
            self.say_done(what, seconds, f'log in {folder}/log.txt')
        else:
            console.print(f'      finished before, {folder}')
        self.seconds[what] = read_json(record)['seconds']

    def say_done(self, step: str, seconds: float | None, more: str) -> None:
        """Print how long a step took."""
        taken = 'resumed' if seconds is None else duration(seconds)
        console.print(f'      {taken}, {more}')

    def train_base(self) -> str:
        """Give the checkpoint of the first stage."""
        if self.given is not None:
            console.print(f'      given, {self.given}')
            return self.given
        self.train('base', self.base_config, self.base_dir)
        return str(last_checkpoint(self.base_dir))

    def convert(self, base_checkpoint: str) -> None:
        """Give the classifier of the base the layout of the second stage.

        Raises:
            LongTailError: If the base is of other classes or layers.
        """
        if self.start_record.exists() and self.start.exists():
            console.print(f'      finished before, {self.start}')
        else:
            start = time.monotonic()
            statistics = count_classes(self.stage)
            try:
                converted = convert_checkpoint(
                    Checkpoint.load(base_checkpoint),
                    self.stage,
                    class_statistics=statistics,
                )
            except LongTailError as error:
                if base_checkpoint in str(error):
                    raise
                raise LongTailError(f'{base_checkpoint}: {error}') from error
            self.stage_dir.mkdir(parents=True, exist_ok=True)
            statistics.save(self.statistics)
            converted.save(self.start)
            seconds = time.monotonic() - start
            record = {
                'base_checkpoint': base_checkpoint,
                'digest': digest(base_checkpoint),
                'seconds': seconds,
            }
            text = json.dumps(record, indent=1) + '\n'
            write_atomic(self.start_record, text)
            self.say_done('conversion', seconds, f'{self.start}')
        self.seconds['conversion'] = read_json(self.start_record)['seconds']

    def say_how_to_launch(self) -> None:
        """Print how to train the second stage somewhere else."""
        config = shlex.quote(str(self.stage_config))
        folder = shlex.quote(str(self.stage_dir))
        console.print(
            '      to train it elsewhere, then this command again:\n'
            f'        python tools/train.py {config} --work-dir {folder}\n'
            f'        mim train mmdet {config} --work-dir {folder} '
            '--launcher slurm --partition NAME --gpus 8'
        )

    def test(self, config: Path, checkpoint: str, name: str) -> dict[str, Any]:
        """Evaluate a checkpoint unless that is done."""
        out = self.stage_dir / f'{name}.json'
        if not out.exists():
            folder = self.stage_dir / name
            self.run_tool(
                'test.py',
                [
                    str(config),
                    checkpoint,
                    '--work-dir',
                    str(folder),
                    '--json',
                    str(out),
                ],
                f'evaluation of {checkpoint}',
                folder,
            )
        return read_json(out)['metrics']

    def evaluate(self, base_checkpoint: str) -> None:
        """Evaluate both stages, and keep the results."""
        start = time.monotonic()
        validated = [
            folder / 'metrics.json'
            for folder in (self.base_dir, self.stage_dir)
        ]
        before = after = None
        if (
            self.given is None
            and is_evaluated_alike(self.base, self.stage)
            and validated[0].exists()
        ):
            before = read_json(validated[0])
        if validated[1].exists():
            after = read_json(validated[1])
        if before is None:
            before = self.test(self.before_config, base_checkpoint, 'before')
        if after is None:
            checkpoint = str(last_checkpoint(self.stage_dir))
            after = self.test(self.stage_config, checkpoint, 'after')
        seconds = self.seconds | {'evaluation': time.monotonic() - start}
        content = {
            'base_checkpoint': base_checkpoint,
            'checkpoint': str(last_checkpoint(self.stage_dir)),
            'metrics': {
                key: {'before': before.get(key), 'after': after.get(key)}
                for key in dict.fromkeys([*before, *after])
            },
            'seconds': {step: seconds.get(step) for step in STEPS},
        }
        write_atomic(self.result, json.dumps(content, indent=1) + '\n')

    def finish(self) -> dict[str, Any]:
        """Do all steps, and give what was found."""
        names = (self.base_dir.name, self.stage_dir.name)
        console.print(f'[1/4] base: {names[0]}')
        base_checkpoint = self.train_base()
        console.print('[2/4] its classifier in the layout of the next stage')
        self.convert(base_checkpoint)
        console.print(f'[3/4] classifier: {names[1]}')
        if not (self.stage_dir / 'finished.json').exists():
            self.say_how_to_launch()
        self.train('classifier', self.stage_config, self.stage_dir)
        console.print('[4/4] evaluation of both')
        if self.result.exists():
            console.print(f'      finished before, {self.result}')
        else:
            self.evaluate(base_checkpoint)
        return read_json(self.result)


# -- the results -----------------------------------------------------------


def print_results(result: dict[str, Any], is_base_given: bool) -> None:
    """Print the APs before and after in per cent, and the times."""
    table = Table(title='AP in %', box=box.SIMPLE)
    table.add_column('')
    for name in ('before', 'after', 'difference'):
        table.add_column(name, justify='right')
    for key, pair in result['metrics'].items():
        if not SUMMARY.fullmatch(key):
            continue
        # The mean over no class is -1.
        before, after = (
            math.nan if pair[name] in (None, -1) else 100 * pair[name]
            for name in ('before', 'after')
        )
        cells = [f'{before:.1f}', f'{after:.1f}', f'{after - before:+.1f}']
        table.add_row(
            key.rpartition('/')[2].replace('_', ' ', 1),
            *('-' if 'nan' in cell else cell for cell in cells),
        )
    console.print(table)
    for step, seconds in result['seconds'].items():
        taken = '-' if seconds is None else duration(seconds)
        if seconds is None:
            is_given = step == 'base' and is_base_given
            taken = 'given' if is_given else 'not known, it was interrupted'
        console.print(f'  {step:12} {taken}')


def main() -> None:
    """Do what is not done yet, then compare."""
    args = parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work_dir = Path(args.work_dir)
    given = args.base_checkpoint
    if given is not None:
        if '://' not in given and Path(given).is_dir():
            given = str(last_checkpoint(given))
        Checkpoint.load(given)  # A mistake shows at once.
    elif args.config is None:
        raise LongTailError(
            'no CONFIG: give the config of a second stage, or a trained '
            'detector by --base-checkpoint'
        )
    with exclusive(work_dir) as lock:
        cfg_options = args.cfg_options
        if args.config is not None:
            path = Path(args.config)
        else:
            path = derive_stage(given, work_dir, cfg_options)
            cfg_options = None  # base.py has them
        base_name, base, stage = read_configs(path, cfg_options, args.seed)
        try:
            stages = TwoStages(
                work_dir,
                base_name,
                base,
                path.stem,
                stage,
                given,
                args.nproc_per_node,
                lock,
            )
            result = stages.finish()
        except KeyboardInterrupt:
            console.print('\nInterrupted; the same command goes on from here.')
            raise
    print_results(result, given is not None)
    console.print(f'{stages.result} has all metrics.')
    console.print(f'{result["checkpoint"]} is the detector.')


if __name__ == '__main__':
    run(main)
