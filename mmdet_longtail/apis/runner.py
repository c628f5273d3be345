"""Configs and runners, with one-line errors for broken files."""

import errno
import hashlib
import io
import logging
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from traceback import walk_tb
from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, HOOKS, METRICS
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS, init_default_scope
from mmengine.runner import Runner

from mmdet_longtail.engine.hooks import TrainOnlyHook
from mmdet_longtail.engine.run_faults import find_loop_faults
from mmdet_longtail.engine.runner.launch import set_up_launcher
from mmdet_longtail.errors import LongTailError, check, one_line
from mmdet_longtail.evaluation.metrics import DetectionFileMetric
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.structures.annotation_faults import (
    MIN_SIZE,
    check_annotations,
)
from mmdet_longtail.structures.checkpoint import Checkpoint
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.findings import Severity
from mmdet_longtail.utils.arguments import (
    BuildError,
    explain_build,
    is_building,
)
from mmdet_longtail.utils.class_names import dataset_classes
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import read_json, read_text
from mmdet_longtail.utils.registry import is_type

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
NO_STAGE = (
    'freezes no layers, whose features could be cached; give a classifier '
    'stage, with a TrainOnlyHook'
)
OTHER_NUM_CLASSES = ('backbone', 'rpn_head', 'semantic')


# -- configs ---------------------------------------------------------------


@contextmanager
def unreadable_explained(source: str | Path) -> Iterator[None]:
    """Convert any failure to read a config to a one-line error.

    Raises:
        LongTailError: Naming the source of the config and its own error.
    """
    try:
        yield
    except Exception as error:
        raise LongTailError(
            f'{source}: not a config that can be read '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error


def load_config(
    path: str | Path, cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Load a config and merge overrides (dotted keys and values) into it.

    Raises:
        LongTailError: If the file is missing or broken, or a key does not fit
            the config.
    """
    check(os.path.isfile(path), f'{path}: no such config; check the path')
    with unreadable_explained(path):
        config = Config.fromfile(path)
    merge_options(config, cfg_options, path)
    check(
        isinstance(config.get('model', {}), Mapping),
        f'{path}: model is {config.get("model")!r}, expected a dict',
    )
    load_from = config.get('load_from')
    check(
        load_from is None or isinstance(load_from, str),
        f'{path}: load_from is {load_from!r}, expected the path of a '
        'checkpoint',
    )
    return config


def merge_options(
    config: Config, cfg_options: Mapping[str, Any] | None, source: object
) -> None:
    """Merge overrides (dotted keys and values) into a config in place.

    Raises:
        LongTailError: If a key does not fit the config, naming its source.
    """
    try:
        config.merge_from_dict(dict(cfg_options or {}))
    except (KeyError, TypeError, IndexError) as error:
        raise LongTailError(
            f'{source}: cfg-options do not fit the config ({one_line(error)})'
        ) from error


def merge_imports(*configs: Config) -> dict[str, Any]:
    """Return the custom_imports of configs, with mmdet_longtail."""
    imports = [config.get('custom_imports') or {} for config in configs]
    modules = [name for one in imports for name in one.get('imports', ())]
    return {
        'imports': list(dict.fromkeys([*modules, 'mmdet_longtail'])),
        'allow_failed_imports': any(
            one.get('allow_failed_imports') for one in imports
        ),
    }


def add_feature_cache(config: Config) -> bool:
    """Let a classifier stage train from cached RoI features.

    Returns:
        bool: Whether the config is such a stage, which freezes the detector.
        A config of another training has no FeatureCacheHook afterwards.
    """
    hooks = config.get('default_hooks') or ConfigDict()
    every = [*hooks.values(), *(config.get('custom_hooks') or ())]
    is_stage = any(is_type(HOOKS, hook, TrainOnlyHook) for hook in every)
    if is_stage:
        settings = hooks.get('feature_cache') or {}
        hooks.feature_cache = {**settings, 'type': 'FeatureCacheHook'}
        config.default_hooks = hooks
    else:
        hooks.pop('feature_cache', None)
    return is_stage


def load_run_config(
    path: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    work_dir: str | Path | None = None,
) -> Config:
    """Load a config as `load_config` does, and set its work directory.

    The directory defaults to the config's, else work_dirs/<name of config>.
    """
    config = load_config(path, cfg_options)
    default = config.get('work_dir') or f'work_dirs/{Path(path).stem}'
    config.work_dir = str(work_dir or default)
    return config


# -- runs ------------------------------------------------------------------


@contextmanager
def running(config: Config, launcher: str, split: str) -> Iterator[Runner]:
    """Build a runner, and explain the failures of what it does.

    The config has a work_dir. The launcher is 'none', 'pytorch', 'slurm' or
    'mpi', and the split, 'train' or 'test', is the loop to run.

    Raises:
        LongTailError: If work directory, launcher, model and data do not
            work, or see `failures_explained`.
    """
    try:
        os.makedirs(config.work_dir, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.work_dir) as file:
            file.write(b'text')
    except OSError as error:
        raise LongTailError(
            f'{config.work_dir}: the work directory cannot be written '
            f'({error.strerror}); choose another one with --work-dir'
        ) from error
    set_up_launcher(config, launcher)
    with failures_explained(config):
        build = _build_without_config_log if split == 'test' else RUNNERS.build
        runner = build(config)
        loop = getattr(runner, f'{split}_loop')
        check_num_classes(runner, loop.dataloader.dataset)
        for fault in find_loop_faults(loop, split):
            check(fault.severity < Severity.ERROR, fault.message)
        yield runner


def _build_without_config_log(config: Config) -> Runner:
    """Build a runner; only its log file gets the config and the hooks."""
    stdout = sys.stdout
    with redirect_stdout(io.StringIO()) as hidden:
        runner = RUNNERS.build(config)
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(stdout)
    for line in hidden.getvalue().splitlines():
        if ' - WARNING - ' in line:
            print(line)
    return runner


def check_num_classes(runner: Runner, dataset: Any) -> None:
    """Compare every num_classes of the model with the classes of a dataset.

    Region proposal and semantic segmentation heads have a num_classes of
    another meaning and are not compared.
    """
    metainfo = getattr(dataset, 'metainfo', None)
    if not metainfo:
        return
    num_classes = len(dataset_classes(dataset) or ())
    if not num_classes:
        return
    model = unwrapped(runner.model)
    if hasattr(model, 'language_model'):
        return  # Its num_classes counts words.
    for name, module in model.named_modules():
        found = getattr(module, 'num_classes', None)
        check(
            not isinstance(found, int)
            or found == num_classes
            or any(part in name for part in OTHER_NUM_CLASSES),
            f'model.{name}.num_classes is {found}, but the dataset has '
            f'{num_classes} classes: set num_classes={num_classes} in every '
            'head and loss of the config, or let tools/make_config.py write '
            'them',
        )


@contextmanager
def failures_explained(config: Config) -> Iterator[None]:
    """Convert a failure that config or files cause to a one-line error.

    The cause may be the type or an argument of something that is built, a key
    that no metric reports, a package that is not installed, a broken
    annotation file or checkpoint, a missing file, or a full disk. All other
    exceptions are raised unchanged.

    Raises:
        LongTailError: If config or files are the cause.
    """
    try:
        yield
    except Exception as failure:
        error: BaseException = failure
        if isinstance(error, BuildError) and error.__cause__ is not None:
            error = error.__cause__
        elif isinstance(error, LongTailError):
            raise _without_trace(error) from None
        message = explain_build(error) or _explain_metrics(error)
        if message:
            raise LongTailError(message) from error
        if isinstance(error, ImportError) and 'install' in str(error):
            raise LongTailError(
                f'{one_line(error)}, or remove what needs it from the config'
            ) from error
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise LongTailError(
                f'{error.filename or config.get("work_dir")}: cannot be '
                f'written ({error.strerror}); the checkpoints written so far '
                'are complete'
            ) from error
        parts = ('dataloader', 'evaluator')
        is_missing = isinstance(error, FileNotFoundError)
        for path in annotation_files(
            config.get(f'{split}_{part}')
            for split in ('train', 'val', 'test')
            for part in parts
        ):
            # A detector runs without the files of its training.
            if '://' in path or not (is_missing or os.path.exists(path)):
                continue
            needed = _needed_of(path, config, error)
            check_annotations(read_json(path), path, **needed)
        load_from = config.get('load_from')
        if load_from and '://' not in load_from:
            Checkpoint.load(load_from)
        if is_missing:
            # The message of a data loader's worker is its stack trace.
            cause = str(error).splitlines()[-1]
            raise LongTailError(
                f'{cause}; check the paths in the config'
            ) from error
        if is_building(error) and not isinstance(failure, BuildError):
            raise LongTailError(
                f'{config.filename or "the config"}: cannot be built '
                f'({type(error).__name__}: {one_line(error)})'
            ) from error
        raise


def _without_trace(error: LongTailError) -> LongTailError:
    """Return an error without the stack trace of a data loader's worker."""
    lines = str(error).splitlines()
    if len(lines) < 2 or not lines[0].startswith('Caught '):
        return error
    return LongTailError(lines[-1].partition(f'{LongTailError.__name__}: ')[2])


def _explain_metrics(error: BaseException) -> str | None:
    """Explain a failure of a hook to find its key among the metrics."""
    for frame, _ in walk_tb(error.__traceback__):
        hook, metrics = map(frame.f_locals.get, ('self', 'metrics'))
        if isinstance(hook, Hook) and isinstance(metrics, dict):
            return (
                f'{type(hook).__name__}: {one_line(error)}; set save_best or '
                'monitor to a key that the evaluator reports, and rule='
                f"'greater' beside it: {', '.join(metrics)}"
            )
    return None


def _needed_of(
    path: str, config: Config, error: BaseException
) -> dict[str, Any]:
    """Return what a failed run needed of an annotation file.

    mmengine cannot concatenate the images of a dataset that has none.
    """
    loader = str(config.get('train_dataloader'))
    is_trained = os.path.basename(path) in loader
    is_empty = is_trained and 'at least one array' in str(error)
    return dict(
        needs_boxes=is_empty,
        min_size=MIN_SIZE if is_empty else None,
        needs_masks=is_trained and "'with_mask': True" in loader,
        optional_masks='LoadOptionalMasks' in loader,
    )


def count_classes(config: Config) -> ClassStatistics:
    """Count the training set of a config, or read the file of its hook."""
    hook = config.get('default_hooks', {}).get('class_statistics') or {}
    if hook.get('class_statistics'):
        return ClassStatistics.load(hook['class_statistics'])
    init_default_scope(config.get('default_scope', 'mmdet'))
    with failures_explained(config), quiet():
        dataset = DATASETS.build(config.train_dataloader.dataset)
        return ClassStatistics.from_dataset(dataset)


def annotation_files(parts: Iterable[Any]) -> list[str]:
    """List the distinct COCO and LVIS files of dataloaders and evaluators."""
    paths: dict[str, None] = {}
    readers = (CocoDataset, CocoMetric, DetectionFileMetric)

    def collect(node: Any) -> None:
        if isinstance(node, Mapping):
            kind = node.get('type')
            if isinstance(kind, str):
                kind = DATASETS.get(kind) or METRICS.get(kind)
            if (
                isinstance(kind, type)
                and issubclass(kind, readers)
                and not issubclass(kind, CocoPanopticDataset)
            ):
                root = node.get('data_root') or ''
                files = map(node.get, ('ann_file', 'train_ann_file'))
                paths.update((os.path.join(root, f), None) for f in files if f)
            node = list(node.values())
        if isinstance(node, list | tuple):
            for child in node:
                collect(child)

    collect(list(parts))
    return list(paths)


def checkpoint_digest(path: str) -> str:
    """Return the SHA-256 of a checkpoint file, or its address."""
    if '://' in path:
        return path
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def last_checkpoint(work_dir: str | Path) -> Path:
    """Return the path of a training's last checkpoint.

    The work directory may have been moved after the training.

    Raises:
        LongTailError: If there is none, or the file that names it is broken.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    check(
        pointer.is_file(),
        f'{work_dir}: no training wrote a checkpoint here; train first, or '
        'check the path',
    )
    named = Path(read_text(pointer).strip())
    # A checkpoint hook may have an out_dir of its own.
    for path in (Path(work_dir, named.name), named):
        if _is_file(path):
            return path
    raise LongTailError(
        f'{pointer}: expected the path of an existing checkpoint, found '
        f'{str(named)[:80]!r}; write one into it, such as epoch_1.pth, or '
        'remove it to train from the start'
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a null byte, or too long a name
        return False
