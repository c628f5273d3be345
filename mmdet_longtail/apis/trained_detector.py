"""Trained detectors with their data: load, build, run and save them."""

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch import nn

from mmdet_longtail.apis.runner import (
    failures_explained,
    last_checkpoint,
    load_config,
    merge_imports,
    merge_options,
)
from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.utils.class_names import dataset_classes
from mmdet_longtail.utils.console import quiet, show_progress
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.registry import innermost, is_type


@dataclass
class TrainedDetector:
    """A checkpoint with the config of its model, and a dataset.

    Args:
        checkpoint (Checkpoint): Weights, and the path for messages.
        config (Config): Config with the model of the checkpoint.
        dataset (Any): Dataset with the classes of the checkpoint.
        statistics (ClassStatistics, optional): Counts for the losses of the
            model. None leaves the losses as the checkpoint has them.
    """

    checkpoint: Checkpoint
    config: Config
    dataset: Any
    statistics: ClassStatistics | None = None

    @classmethod
    def load(
        cls,
        config_file: str | Path,
        checkpoint_file: str | Path,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> 'TrainedDetector':
        """Load a detector with its training set, out of its wrappers.

        The model is that of the checkpoint's own config, if it carries one.
        A work directory stands for its last checkpoint.
        The counts are those of the checkpoint, else of the training set.

        Raises:
            LongTailError: If a file is missing or broken, or the training
                set does not read one COCO or LVIS file.
        """
        config = load_config(config_file, cfg_options)
        if os.path.isdir(checkpoint_file):
            checkpoint_file = last_checkpoint(checkpoint_file)
        checkpoint = Checkpoint.load(checkpoint_file)
        if checkpoint.config is not None:
            config.model = checkpoint.require_config().model
            merge_options(config, cfg_options, checkpoint_file)
        init_default_scope('mmdet')
        check(
            config.get('train_dataloader'),
            f'{config_file}: has no train_dataloader, expected the training '
            'set of the checkpoint; give its config',
        )
        settings = innermost(config.train_dataloader.dataset)
        check(
            is_type(DATASETS, settings, CocoDataset),
            f'{config_file}: train_dataloader.dataset is a {settings.type}, '
            'expected one that reads one COCO or LVIS file; merge several by '
            'tools/dataset_converters/merge_annotations.py',
        )
        with failures_explained(config), quiet():
            dataset = DATASETS.build(settings)
        statistics = checkpoint.class_statistics
        if statistics is None:
            statistics = ClassStatistics.from_dataset(dataset)
        return cls(checkpoint, config, dataset, statistics)

    def build(self) -> Any:
        """Build the model of the config with the weights.

        It is in eval mode, without gradients, on the default device.

        Raises:
            LongTailError: If the model has no classifier, or model,
                checkpoint and dataset do not fit.
        """
        with quiet():
            model = revert_sync_batchnorm(MODELS.build(self.config.model))
        [head, *_] = classifier_heads(model).values()
        classes = dataset_classes(self.dataset)
        self.checkpoint.check_classes(classes, 'the data')
        check(
            classes is None or len(classes) == head.num_classes,
            f'{self.checkpoint.source}: its model has {head.num_classes} '
            f'classes, but the data has {len(classes or ())}: use a '
            'checkpoint and a config of the same dataset',
        )
        self.checkpoint.load_into(model)
        for module in model.modules():
            if self.statistics and isinstance(module, LongTailLoss):
                module.set_class_statistics(self.statistics)
        return model.requires_grad_(False).eval().to(get_device())

    def save(self, out: Path, model: nn.Module) -> None:
        """Write the edited model, .pth, and the config that tests it, .py.

        Raises:
            LongTailError: If a weight is infinite or NaN, or a file cannot be
                written; then neither is.
        """
        for name, value in model.state_dict().items():
            check(
                value.isfinite().all(),
                f'{out}: is not written, because {name} would be infinite or '
                'NaN; give a smaller strength or temperature',
            )
        config = copy.deepcopy(self.config)
        config.update(load_from=None, resume=False)
        config.pop('work_dir', None)
        config.custom_imports = merge_imports(config)
        meta = {'dataset_meta': dict(self.dataset.metainfo)}
        meta |= {k: v for k, v in self.checkpoint.meta.items() if v}
        meta['cfg'] = config.pretty_text
        test_config = out.with_suffix('.py')
        write_atomic(test_config, config.pretty_text)
        try:
            Checkpoint(model.state_dict(), meta, self.statistics).save(out)
        except LongTailError:
            test_config.unlink()
            raise
        print(
            f'{out} is written; test with: longtail test {test_config} {out}'
        )


def load_batches(
    dataset: Any, settings: Mapping[str, Any], description: str
) -> Iterator[Any]:
    """Yield the batches of a dataset in order, with a progress bar on stdout.

    Of the settings, a config's ``*_dataloader``, batch_size and num_workers
    are used.
    """
    with quiet():
        loader = Runner.build_dataloader(
            dict(
                dataset=dataset,
                sampler=dict(type='DefaultSampler', shuffle=False),
                batch_size=settings.get('batch_size', 1),
                num_workers=settings.get('num_workers', 0),
            ),
            seed=0,
        )
    yield from show_progress(loader, description)
