"""Testing a checkpoint by the config and the counts that it carries."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import Progress

from mmdet_longtail.apis.runner import (
    build_runner,
    failures_explained,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import Detections, GroundTruth
from mmdet_longtail.structures import Checkpoint
from mmdet_longtail.structures.annotations import image_file_name
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.console import quiet


class ProgressHook(Hook):
    """Shows how far a test is.

    Args:
        name (str): What is tested.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress = Progress(console=Console(file=sys.stdout))

    def before_test(self, runner: Runner) -> None:
        """Begin."""
        total = len(runner.test_loop.dataloader)
        self.task = self.progress.add_task(f'Testing {self.name}', total=total)
        self.progress.start()

    def after_test_iter(self, *args: Any, **kwargs: Any) -> None:
        """Go on."""
        self.progress.advance(self.task)

    def after_test_epoch(self, *args: Any, **kwargs: Any) -> None:
        """End."""
        self.progress.stop()


def keep_only_test(config: Config, path: str, folder: str) -> None:
    """Leave in a config what tests a checkpoint, quietly.

    Args:
        config (Config): With test_dataloader and test_evaluator; changed in
            place.
        path (str): The checkpoint.
        folder (str): Where the test may write.
    """
    config.test_cfg = dict(type='TestLoop')
    for key in (
        'train_dataloader',
        'train_cfg',
        'optim_wrapper',
        'val_dataloader',
        'val_cfg',
        'val_evaluator',
    ):
        config[key] = None
    config.pop('param_scheduler', None)
    config.pop('visualizer', None)  # one name in all configs, one work_dir
    config.update(
        load_from=path,
        resume=False,
        work_dir=folder,
        experiment_name=Path(folder).name,
        log_level='WARNING',
    )


def detect(
    checkpoint: Checkpoint,
    name: str,
    ground_truth: GroundTruth,
    images: Sequence[int],
    folder: str,
    iou_type: str,
) -> Detections:
    """Run a checkpoint on some images of any COCO or LVIS file.

    Args:
        checkpoint (Checkpoint): With a config and class statistics.
        name (str): What the detector is called.
        ground_truth (GroundTruth): The validation set.
        images (Sequence[int]): Positions in ``ground_truth.images``.
        folder (str): Where the image files are.
        iou_type (str): 'bbox' or 'segm'.

    Raises:
        LongTailError: If the checkpoint is of other classes or kinds of
            data.
    """
    check_counted_classes(ground_truth, checkpoint.require_class_statistics())
    progress = ProgressHook(name)
    entries = [ground_truth.images[image] for image in images]
    content = {
        'images': [dict(e, file_name=image_file_name(e)) for e in entries],
        'annotations': [],
        'categories': ground_truth.dataset['categories'],
    }
    with (
        tempfile.TemporaryDirectory() as work_dir,
        # What mmengine and pycocotools print would break the progress bar.
        quiet(),
    ):
        ann_file = f'{work_dir}/images.json'
        Path(ann_file).write_text(json.dumps(content))
        config = checkpoint.require_config()
        config.test_dataloader = config.val_dataloader
        dataset = config.test_dataloader.dataset
        kind = DATASETS.get(dataset.type)
        if not (isinstance(kind, type) and issubclass(kind, CocoDataset)):
            raise LongTailError(
                f'{checkpoint.source}: was validated on a {dataset.type}, '
                'which takes no COCO annotations; test it by tools/test.py '
                '--out PREFIX and give the result file'
            )
        dataset.update(
            ann_file=ann_file,
            data_root='',
            data_prefix=dict(img=str(Path(folder).resolve())),
            test_mode=True,
        )
        config.test_evaluator = dict(
            type='FrequencyGroupMetric',
            ann_file=ann_file,
            metric=iou_type,
            format_only=True,
            outfile_prefix=f'{work_dir}/detections',
        )
        keep_only_test(config, checkpoint.source, work_dir)
        with failures_explained(config):
            runner = build_runner(config)
            runner.register_hook(progress)
            runner.test()
        found = Path(work_dir, f'detections.{iou_type}.json').read_text()
    return Detections.from_results(
        json.loads(found), ground_truth, iou_type, checkpoint.source
    )
