"""A trained detector whose classifier is edited without training.

The tools of tools/model_converters share it: they read a checkpoint and
write one, with the config that tests it.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from mmdet_longtail.apis.runner import (
    failures_explained,
    load_config,
)
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import (
    classifier_heads,
    is_softmax,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.utils.class_names import dataset_classes
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import write_atomic

PACKAGE = 'mmdet_longtail'
CONVERT = 'longtail convert turns other classifiers into a softmax'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what each of the tools reads and writes."""
    parser.add_argument('config', help='config file, whose data is used')
    parser.add_argument('checkpoint', help='checkpoint of a detector')
    parser.add_argument(
        'out',
        type=Path,
        help='checkpoint to write, .pth; the config that tests it goes '
        'beside it, with the ending .py',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override keys of the config; lists as key="[a,b]" or key=a,b',
    )


@dataclass
class TrainedDetector:
    """A checkpoint, the config of its model and of the data.

    Args:
        checkpoint (Checkpoint): The checkpoint.
        config (Config): The user's, with the model of the checkpoint.
        dataset (CocoDataset): Training set, out of its wrappers.
        statistics (ClassStatistics): Its counts.
    """

    checkpoint: Checkpoint
    config: Config
    dataset: CocoDataset
    statistics: ClassStatistics

    @classmethod
    def read(cls, args: argparse.Namespace) -> TrainedDetector:
        """Read what `add_arguments` names.

        The model is that of the checkpoint's own config, if it has one.

        Raises:
            LongTailError: If a file is missing or broken, they do not fit, or
                the output exists.
        """
        check_out(args.out)
        config = load_config(args.config, args.cfg_options)
        checkpoint = Checkpoint.load(args.checkpoint)
        if checkpoint.config is not None:
            config.model = checkpoint.require_config().model
            try:
                config.merge_from_dict(dict(args.cfg_options or {}))
            except (KeyError, TypeError, IndexError) as error:
                raise LongTailError(
                    f'{args.checkpoint}: cfg-options do not fit its own '
                    f'config ({one_line(error)})'
                ) from error
        init_default_scope('mmdet')
        dataset = build_training_set(config, args.config)
        checkpoint.check_classes(dataset_classes(dataset), 'the data')
        statistics = (
            checkpoint.class_statistics
            or ClassStatistics.from_dataset(dataset)
        )
        return cls(checkpoint, config, dataset, statistics)

    @property
    def path(self) -> str:
        """Path of the checkpoint."""
        return self.checkpoint.source

    def build(self) -> Any:
        """Build the model of the config, ready to test.

        Raises:
            LongTailError: If it has no classifier, or model, checkpoint and
                data do not fit.
        """
        with quiet():
            model = revert_sync_batchnorm(MODELS.build(self.config.model))
        num_classes = next(iter(classifier_heads(model).values())).num_classes
        num_in_data = len(dataset_classes(self.dataset) or ())
        if num_in_data != num_classes:
            raise LongTailError(
                f'{self.path}: its model has {num_classes} classes, but the '
                f'data has {num_in_data}: use the ones of the same data'
            )
        self.checkpoint.load_into(model)
        for module in model.modules():
            if isinstance(module, LongTailLoss):
                module.set_class_statistics(self.statistics)
        return model.requires_grad_(False).eval().to(get_device())

    def write(self, out: Path, model: nn.Module) -> None:
        """Write checkpoint and config.

        Args:
            out (Path): The checkpoint.
            model (nn.Module): What `build` gives of the same config, changed.

        Raises:
            LongTailError: If one cannot be written; then neither is.
        """
        config = copy.deepcopy(self.config)
        config.load_from = None
        config.resume = False
        config.pop('work_dir', None)
        imports = config.setdefault(
            'custom_imports', dict(imports=[], allow_failed_imports=False)
        )
        if PACKAGE not in imports['imports']:
            imports['imports'] = [*imports['imports'], PACKAGE]
        recorded = self.checkpoint.meta.get('dataset_meta')
        changed = Checkpoint(
            model.state_dict(),
            {
                **self.checkpoint.meta,
                'cfg': config.pretty_text,
                'dataset_meta': recorded or dict(self.dataset.metainfo),
            },
            self.statistics,
        )
        write_atomic(config_beside(out), config.pretty_text)
        try:
            changed.save(out)
        except LongTailError:
            config_beside(out).unlink()
            raise
        print(
            f'{out} is written; test with: python tools/test.py '
            f'{config_beside(out)} {out}'
        )


def config_beside(out: Path) -> Path:
    """The config that tests a checkpoint that is written."""
    return out.with_suffix('.py')


def check_out(out: Path) -> None:
    """Check that nothing is overwritten.

    Raises:
        LongTailError: If something would be, or the ending is not .pth.
    """
    if out.suffix != '.pth':
        raise LongTailError(f'{out}: expected a name that ends in .pth')
    for path in (out, config_beside(out)):
        if path.exists():
            raise LongTailError(
                f'{path}: exists already; remove it, or give another name'
            )


def innermost(settings: ConfigDict) -> ConfigDict:
    """The config of a dataset without its wrappers."""
    while 'dataset' in settings:
        settings = settings.dataset
    return settings


def build_training_set(config: Config, path: str) -> CocoDataset:
    """Build the training set of a config, out of its wrappers.

    Args:
        config (Config): The config.
        path (str): Its file, for messages.

    Raises:
        LongTailError: If there is none, or it is none with a COCO or LVIS
            file.
    """
    if not config.get('train_dataloader'):
        raise LongTailError(
            f'{path}: has no train_dataloader, expected the training set of '
            'the checkpoint; give its config'
        )
    settings = innermost(config.train_dataloader.dataset)
    kind = DATASETS.get(settings.type)
    if not (isinstance(kind, type) and issubclass(kind, CocoDataset)):
        raise LongTailError(
            f'{path}: train_dataloader.dataset is a {settings.type}, expected '
            'one that reads one COCO or LVIS file; merge several by '
            'tools/dataset_converters/merge_annotations.py'
        )
    with failures_explained(config), quiet():
        return DATASETS.build(settings)


def check_softmax(detector: TrainedDetector, model: nn.Module) -> None:
    """Check that a background probability can be had.

    Raises:
        LongTailError: Naming the first head that has another classifier.
    """
    for name, head in classifier_heads(model).items():
        if not is_softmax(head):
            raise _other_classifier(
                detector,
                name,
                head,
                f'a softmax of {head.num_classes + 1}, background last',
            )
    check_linear(detector, model)


def check_softmax_or_sigmoid(
    detector: TrainedDetector, model: nn.Module
) -> None:
    """Check that each class has one row, which competes with all others.

    Raises:
        LongTailError: Naming the first head that has another classifier.
    """
    for name, head in classifier_heads(model).items():
        if len(head.fc_cls.weight) != head.num_classes and not is_softmax(
            head
        ):
            raise _other_classifier(
                detector,
                name,
                head,
                f'{head.num_classes} sigmoids, or a softmax of one more',
            )
    check_linear(detector, model)


def check_linear(detector: TrainedDetector, model: nn.Module) -> None:
    """Check that classifiers are plain linear layers.

    Raises:
        LongTailError: Naming the first head that has another one.
    """
    for name, head in classifier_heads(model).items():
        kind = type(head.fc_cls)
        if kind is not nn.Linear:
            way_out = (
                'fold its scales in by longtail fold-weight-scaling first'
                if kind.__name__ == 'ScaledLinear'
                else 'this cannot be done to it'
            )
            raise LongTailError(
                f'{detector.path}: {name}.fc_cls is a {kind.__name__}, '
                f'expected Linear; {way_out}'
            )


def _other_classifier(
    detector: TrainedDetector, name: str, head: Any, expected: str
) -> LongTailError:
    return LongTailError(
        f'{detector.path}: {name}.fc_cls has {len(head.fc_cls.weight)} '
        f'columns for {type(head.loss_cls).__name__}, expected {expected}; '
        f'{CONVERT}'
    )
