"""Faults of a training that can be known before it is started."""

import copy
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
from mmdet.registry import TRANSFORMS
from mmengine import fileio
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import MMLogger
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from PIL import Image
from torch import Tensor

from mmdet_longtail.apis.runner import (
    annotation_files,
    check_num_classes,
    failures_explained,
)
from mmdet_longtail.apis.train import check_load_from, load_train_config
from mmdet_longtail.datasets.seeded import SeededDataset
from mmdet_longtail.datasets.transforms import LoadOptionalMasks
from mmdet_longtail.engine.hooks import (
    ClassStatisticsHook,
    OnlineStateHook,
    TrainOnlyHook,
)
from mmdet_longtail.engine.hooks.convert_classifier_hook import (
    ConvertClassifierHook,
)
from mmdet_longtail.engine.run_faults import (
    find_class_faults,
    find_evaluator_faults,
    find_loading_faults,
    find_loop_faults,
    find_monitor_faults,
    monitored_keys,
    monitors,
    reported_keys,
)
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.evaluation.metrics.class_statistics_mixin import (
    ClassStatisticsMixin,
)
from mmdet_longtail.models.losses.base import LongTailLoss, warn_once
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.structures.annotation_faults import find_annotation_faults
from mmdet_longtail.structures.checkpoint import Checkpoint
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.findings import Finding, Severity
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import read_json
from mmdet_longtail.utils.registry import is_type

NUM_IMAGES = 100
NUM_PIPELINE_IMAGES = 3
EXIF_ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
SPLITS = ('train', 'val', 'test')


def check_training(
    config: str | Path,
    *,
    work_dir: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    auto_scale_lr: bool = False,
    resume: str | None = None,
    all_images: bool = False,
) -> list[Finding]:
    """Find what would go wrong in a training, without training.

    Builds the model and the training, validation and test sets, and reads
    their annotation files, ``load_from`` and a sample of the images.

    Args:
        config (str | Path): Config file of the training.
        work_dir (str | Path, optional): Work directory of the training.
        cfg_options (Mapping, optional): Overrides of the config.
        auto_scale_lr (bool): As for `train_detector`.
        resume (str, optional): As for `train_detector`.
        all_images (bool): Read all images, not a sample. Defaults to False.

    Returns:
        list[Finding]: Errors first, then warnings and notes.
    """
    try:
        cfg = load_train_config(
            config, work_dir, cfg_options, auto_scale_lr, resume
        )
    except LongTailError as error:
        return [Finding(Severity.ERROR, str(error))]
    return check_run_config(cfg, all_images)


def check_run_config(
    config: Config, all_images: bool = False
) -> list[Finding]:
    """Find what would go wrong in the training of a loaded config."""
    with quiet(), tempfile.TemporaryDirectory() as folder:
        findings = _TrainingCheck(config, folder, all_images).findings
    unique = list(dict.fromkeys(findings))
    return sorted(unique, key=lambda finding: -finding.severity)


class _TrainingCheck:
    """The findings of a config, part by part."""

    def __init__(self, config: Config, folder: str, all_images: bool) -> None:
        self.config = config
        self.folder = folder
        self.all_images = all_images
        self.findings: list[Finding] = []
        self.datasets: dict[str, Any] = {}
        self.counted: ClassStatistics | None = None
        self.annotation_files()
        with self.part('model'):
            self.runner = self.build_runner()
            self.build_datasets()
            if 'train' in self.datasets:
                self.statistics()
                self.optimizer()
                self.load_from()
                self.evaluations()
                self.resources()

    @contextmanager
    def part(self, place: str) -> Iterator[None]:
        """Convert an exception in a part, such as a split, to a finding."""
        try:
            with failures_explained(self.config):
                yield
        except LongTailError as error:
            self.findings.append(Finding(Severity.ERROR, str(error)))
        except Exception as error:  # of a user's class or config
            text = f'{place}: {type(error).__name__}: {one_line(error)}'
            self.findings.append(Finding(Severity.ERROR, text))

    def annotation_files(self) -> None:
        """Check the annotation files of all splits."""
        calls: dict[str, dict[str, Any]] = {}
        for split in SPLITS:
            keys = f'{split}_dataloader', f'{split}_evaluator'
            parts = [self.config.get(key) for key in keys]
            nodes = [*_nodes(parts)]
            options = dict(
                needs_masks=any(
                    node.get('with_mask')
                    or 'segm' in (node.get('metric') or ())
                    for node in nodes
                ),
                optional_masks=any(
                    is_type(TRANSFORMS, node, LoadOptionalMasks)
                    for node in nodes
                ),
                needs_boxes=not any(node.get('format_only') for node in nodes),
            )
            sizes = [n['min_size'] for n in nodes if 'min_size' in n]
            if split == 'train' and sizes:
                options['min_size'] = max(sizes)
            for path in annotation_files(parts):
                if '://' not in path:
                    calls.setdefault(path, options)
        for path, options in calls.items():
            with self.part(path):
                self.findings += find_annotation_faults(
                    read_json(path), path, **options
                )

    def build_runner(self) -> Runner:
        """Build the runner in a temporary folder, which writes no logs."""
        config = copy.deepcopy(self.config)
        config.work_dir = self.folder
        config.load_from, config.resume = None, False
        config.launcher = 'none'
        config.log_level = 'ERROR'
        if 'visualizer' in config:
            # mmengine warns if one of that name was built before.
            config.visualizer.update(vis_backends=[], name=self.folder)
        return RUNNERS.build(config)

    def build_datasets(self) -> None:
        """Build the loops, and check loaders, images and pipelines."""
        get = self.config.get
        for split in SPLITS:
            is_same = get('test_dataloader') == get('val_dataloader')
            loop = getattr(self.runner, f'_{split}_loop')
            if loop is None or (split == 'test' and is_same):
                continue
            with self.part(f'{split}_dataloader'):
                loop = getattr(self.runner, f'{split}_loop')
                dataset = self.datasets[split] = loop.dataloader.dataset
                check_num_classes(self.runner, dataset)
                self.findings += find_loop_faults(loop, split)
                number = len(dataset) if self.all_images else NUM_IMAGES
                samples = _spread(len(dataset), number)
                infos = [dataset.get_data_info(i) for i in samples]
                faults = find_image_faults(infos, f'{split}_dataloader')
                self.findings += (found := [*faults])
                if not found:  # else the pipeline would report it again
                    if isinstance(dataset, SeededDataset):
                        dataset = dataset.dataset  # with the same pipeline
                    for i in _spread(len(dataset), NUM_PIPELINE_IMAGES):
                        dataset[i]

    def statistics(self) -> None:
        """Count the training set, and set the counts on the losses."""
        runner = self.runner
        with self.part('default_hooks'), self.logged_warnings():
            for hook in list(runner.hooks):  # prepare adds some
                if isinstance(hook, ClassStatisticsHook):
                    hook.prepare(runner)
                    self.counted = hook.statistics
                elif isinstance(hook, TrainOnlyHook):
                    hook.before_run(runner)
            modules = [*unwrapped(runner.model).modules()]
            if not any(isinstance(h, OnlineStateHook) for h in runner.hooks):
                self.findings += [
                    Finding(Severity.WARNING, module.needed_hook())
                    for module in modules
                    if isinstance(module, OnlineState)
                ]
            if self.config.get('load_from'):
                return  # a checkpoint may have statistics
            for module in modules:
                if (
                    isinstance(module, LongTailLoss)
                    and module.needs_class_statistics
                ):
                    module.require_class_statistics()

    @contextmanager
    def logged_warnings(self) -> Iterator[None]:
        """Convert the warnings that a part logs or issues to findings."""
        warn_once.cache_clear()  # an earlier check may have had the same
        records: list[logging.LogRecord] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = records.append  # type: ignore[method-assign,assignment]
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel(logging.WARNING)
        logger.addHandler(handler)
        try:
            with warnings.catch_warnings(record=True) as issued:
                warnings.simplefilter('ignore')
                warnings.simplefilter('always', UserWarning)
                yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logged = [one_line(record.getMessage()) for record in records]
            logged += [one_line(each.message) for each in issued]
            self.findings += [Finding(Severity.WARNING, m) for m in logged]

    def optimizer(self) -> None:
        """Build the optimizer and its schedules."""
        runner = self.runner
        with self.part('optim_wrapper'):
            runner.optim_wrapper = runner.build_optim_wrapper(
                runner.optim_wrapper
            )
            if runner.param_schedulers is not None:
                runner.param_schedulers = runner.build_param_scheduler(
                    runner.param_schedulers
                )

    def load_from(self) -> None:
        """Compare the checkpoint of ``load_from`` with the model."""
        with self.part('load_from'):
            check_load_from(self.config)
            path = self.config.get('load_from')
            if not path or '://' in path:
                return
            loaded = Checkpoint.load(path)
            model = unwrapped(self.runner.model)
            if self.config.get('resume'):
                loaded.check_weights(model)
                return
            for hook in self.runner.hooks:
                if isinstance(hook, ConvertClassifierHook):
                    hook.convert(self.runner, loaded)
            found = find_loading_faults(loaded.weights, model, path)
            self.findings += found

    def evaluations(self) -> None:
        """Compare evaluators, their datasets and what reads their results."""
        runner = self.runner
        for split in SPLITS[1:]:
            if split not in self.datasets:
                continue
            with self.part(f'{split}_evaluator'):
                dataset = self.datasets[split]
                evaluator = getattr(runner, f'{split}_loop').evaluator
                for metric in evaluator.metrics:
                    if isinstance(metric, ClassStatisticsMixin):
                        metric.statistics = self.counted
                        metric.training_statistics()
                self.findings += find_class_faults(
                    self.datasets['train'], dataset, split
                )
                self.findings += find_evaluator_faults(
                    evaluator, dataset, split
                )
        if 'val' in self.datasets:
            with self.part('param_scheduler'):
                keys = reported_keys(runner.val_loop.evaluator)
                self.findings += find_monitor_faults(monitors(runner), keys)

    def resources(self) -> None:
        """Estimate iterations, and memory and disk for the weights."""
        with self.part('train_cfg'):
            self.findings += find_resource_faults(
                self.runner, self.config.work_dir
            )


def _nodes(part: Any) -> Iterator[Mapping[str, Any]]:
    """Yield all dicts of a part of a config."""
    if isinstance(part, Mapping):
        yield part
        part = list(part.values())
    if isinstance(part, list | tuple):
        for child in part:
            yield from _nodes(child)


def _spread(length: int, number: int) -> list[int]:
    """Return up to a number of indices, evenly spread."""
    return np.unique(np.linspace(0, length - 1, number).astype(int)).tolist()


def find_image_faults(
    infos: Sequence[Mapping[str, Any]], place: str
) -> Iterator[Finding]:
    """Read images, and compare their sizes with the annotations'.

    mmdet turns an image as its EXIF orientation says, but not its boxes.

    Args:
        infos (Sequence[Mapping]): What ``get_data_info`` returns per image.
        place (str): The dataloader, for messages.
    """
    unreadable: list[str] = []
    resized: list[str] = []
    turned: list[str] = []
    for info in infos:
        path = info['img_path']
        try:
            content = fileio.get(path)
            image = mmcv.imfrombytes(content)
        except (OSError, cv2.error, ValueError) as error:
            missing = isinstance(error, FileNotFoundError)
            unreadable.append(
                f'{path} ({"missing" if missing else "not an image"})'
            )
            continue
        if image is None:
            unreadable.append(f'{path} (not an image)')
            continue
        found, stated = (
            image.shape[:2],
            (info.get('height'), info.get('width')),
        )
        if None not in stated and found != stated:
            exif = Image.open(io.BytesIO(content)).getexif()
            is_turned = exif.get(EXIF_ORIENTATION) in TURNED
            (turned if is_turned else resized).append(
                f'{path} ({found[1]} x {found[0]}, annotated as {stated[1]} x '
                f'{stated[0]})'
            )
    for paths, severity, problem in (
        (unreadable, Severity.ERROR, 'cannot be read; check the paths'),
        (
            turned,
            Severity.ERROR,
            'are turned by their EXIF orientation, but their boxes are not; '
            'write the turned images, or set LoadImageFromFile('
            "imdecode_backend='cv2', color_type='color_ignore_orientation')",
        ),
        (
            resized,
            Severity.ERROR,
            'have another size than their annotation says; annotate the '
            'images that are there',
        ),
    ):
        if paths:
            yield Finding(
                severity,
                f'{place}: {len(paths)} of {len(infos)} images that were '
                f'read, such as {paths[0]}, {problem}',
            )


def find_resource_faults(
    runner: Runner, work_dir: str | Path
) -> Iterator[Finding]:
    """Estimate iterations per epoch, and memory and disk for checkpoints."""
    model = unwrapped(runner.model)
    loop = runner.train_loop
    num_iters = len(loop.dataloader)
    size = sum(_num_bytes(t) for t in model.state_dict().values())
    trained = sum(_num_bytes(p) for p in model.parameters() if p.requires_grad)
    optimizer = str(runner.cfg.optim_wrapper.optimizer.type)
    states = (2 if 'Adam' in optimizer else 1) * trained
    has_copy = any(isinstance(hook, EMAHook) for hook in runner.hooks)
    weights = size * (2 if has_copy else 1)
    yield Finding(
        Severity.NOTE,
        f'train_dataloader: {num_iters:,} iterations per epoch on one '
        f'process, {loop.max_iters:,} in all; weights, gradients and states '
        f'of the optimizer take {_mib(weights + trained + states)}, '
        'activations come on top',
    )
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.interval > 0:
            one = weights + (states if hook.save_optimizer else 0)
            last = loop.max_epochs if hook.by_epoch else loop.max_iters
            number = max(last // hook.interval, 1)
            if hook.max_keep_ckpts > 0:
                # The next one is written before the oldest is removed.
                number = min(number, hook.max_keep_ckpts + 1)
            number += len(monitored_keys(hook))
            folder = Path(work_dir).absolute()
            while not folder.exists():
                folder = folder.parent
            free = shutil.disk_usage(folder).free
            yield Finding(
                Severity.WARNING if number * one > free else Severity.NOTE,
                f'CheckpointHook: {number} checkpoints of {_mib(one)} need '
                f'{_mib(number * one)} in {work_dir}, where {_mib(free)} are '
                'free; max_keep_ckpts limits their number',
            )


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _mib(num_bytes: float) -> str:
    return f'{num_bytes / 2**20:,.1f} MiB'
