"""Run a trained detector on any COCO or LVIS file, given its checkpoint.

A checkpoint carries its config and the class statistics of its training set.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader, Dataset

from mmdet_longtail.apis.runner import (
    failures_explained,
    last_checkpoint,
    merge_options,
)
from mmdet_longtail.engine.hooks.train_only_hook import TrainOnlyHook
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import Detections, encode_masks
from mmdet_longtail.structures.checkpoint import Checkpoint
from mmdet_longtail.utils.console import quiet, show_progress
from mmdet_longtail.utils.registry import is_type, resolve_type
from mmdet_longtail.visualization.detections import ImageSet

SOFTMAX_EXPLANATION = (
    'each box of one class pushes the scores of all other classes down. A '
    'frequent class pushes often; a rare class is pushed down thousands of '
    'times and up a few times.'
)
# Sections of a config whose values decide what is learned.
TRAINING_KEYS = (
    'model',
    'train_dataloader',
    'optim_wrapper',
    'param_scheduler',
    'train_cfg',
    'load_from',
    'randomness',
)


class TrainedModel:
    """A checkpoint with the config that it carries.

    Args:
        path (str | Path): A checkpoint, or the work directory of a training.
        cfg_options (dict, optional): Overrides of the config.

    Raises:
        LongTailError: If there is no checkpoint, it carries no config, or the
            overrides do not fit.
    """

    def __init__(
        self, path: str | Path, cfg_options: dict[str, Any] | None = None
    ) -> None:
        if os.path.isdir(path):
            path = last_checkpoint(path)
        self.checkpoint = Checkpoint.load(path)
        self.config = self.checkpoint.require_config()
        merge_options(self.config, cfg_options, str(path))

    def validation_set(self) -> dict[str, Any]:
        """Return the arguments of the evaluator, and the ``image_folder``.

        Raises:
            LongTailError: If the evaluator reads no annotation file.
        """
        evaluators: Any = self.config.get('val_evaluator') or []
        if not isinstance(evaluators, list | tuple):
            evaluators = [evaluators]
        readers = [e for e in evaluators if e.get('ann_file')]
        check(
            readers,
            f'{self.checkpoint.source}: val_evaluator has no ann_file; give '
            'the annotations by --ann',
        )
        dataset = self.config.val_dataloader.dataset
        prefix = dataset.get('data_prefix', {}).get('img', '')
        folder = os.path.join(dataset.get('data_root') or '', prefix)
        return dict(readers[0], image_folder=folder)

    def detect(
        self,
        name: str,
        images: ImageSet,
        positions: Sequence[int] | None,
        iou_type: str,
    ) -> Detections:
        """Detect objects in images of a validation set.

        Args:
            name (str): The detector, for the progress bar.
            images (ImageSet): The validation set.
            positions (Sequence[int], optional): Positions of the images; None
                is all.
            iou_type (str): 'bbox' or 'segm'.

        Raises:
            LongTailError: If the checkpoint is of other classes, predicts no
                masks, or loads images in another way than mmdet's datasets.
        """
        source, truth = self.checkpoint.source, images.truth
        self.checkpoint.check_classes(truth.class_names, truth.source)
        if positions is None:
            positions = range(len(truth.images))
        entries = [
            dict(img_path=str(images.path(i)), img_id=truth.image_ids[i])
            for i in positions
        ]
        samples = self.samples(entries, f'Testing {name}')
        predictions = [_prediction(sample) for sample in samples]
        check(
            iou_type == 'bbox' or all('masks' in p for p in predictions),
            f'{source}: the detections have no masks; use --iou-type bbox',
        )
        return Detections.from_predictions(predictions, truth, iou_type)

    def samples(
        self, entries: Sequence[dict[str, Any]], description: str
    ) -> Iterator[DetDataSample]:
        """Yield the predictions of images, with a progress bar on stdout.

        Args:
            entries (Sequence[dict]): img_path and img_id of each image.
            description (str): Text of the progress bar.

        Raises:
            LongTailError: If the checkpoint loads images in another way than
                mmdet's datasets, or is broken.
        """
        init_default_scope(self.config.get('default_scope', 'mmdet'))
        settings = self.config.get('val_dataloader') or self.config.get(
            'test_dataloader'
        )
        check(
            settings and 'pipeline' in settings.dataset,
            f'{self.checkpoint.source}: its config has no val_dataloader '
            'whose dataset has a pipeline, by which images are loaded; test '
            'it by tools/test.py --out PREFIX and give the result file',
        )
        with failures_explained(self.config):
            with quiet():
                pipeline = Compose(settings.dataset.pipeline)
                model = revert_sync_batchnorm(MODELS.build(self.config.model))
                self.checkpoint.load_into(model)
            model.eval().to(get_device())
            loader: DataLoader = DataLoader(
                cast('Dataset', entries),
                batch_size=settings.get('batch_size', 1),
                num_workers=settings.get('num_workers', 0),
                collate_fn=lambda b: pseudo_collate([*map(pipeline, b)]),
            )
            for batch in show_progress(loader, description):
                with quiet(), torch.no_grad():
                    samples = model.test_step(batch)
                yield from samples

    def details(self, num_classes: int) -> dict[str, Any]:
        """Return the training's details for a report, see `Detector`."""
        config, weights = self.config, self.checkpoint.weights
        training = [
            f'{config.train_cfg[key]} {key.removeprefix("max_")}'
            for key in ('max_epochs', 'max_iters')
            if key in config.train_cfg
        ]
        hooks = config.get('custom_hooks', [])
        for hook in [*hooks, *config.get('default_hooks', {}).values()]:
            if is_type(HOOKS, hook, TrainOnlyHook):
                layers = [n.rpartition('.')[2] for n in hook['trainable']]
                training.append(f'only {", ".join(layers)}')
        layers = [name for name in weights if name.endswith('fc_cls.weight')]
        return dict(
            source=self.checkpoint.source,
            training=', '.join(training),
            explanation=self.explanation(),
            class_weights=(
                weights[layers[-1]][:num_classes].numpy() if layers else None
            ),
            settings=dict(_settings(config)),
        )

    def explanation(self) -> str:
        """Explain how the classification loss treats rare classes."""
        heads = self.config.model.get('roi_head', {}).get('bbox_head', {})
        head = heads[-1] if isinstance(heads, list | tuple) else heads
        loss = head.get('loss_cls') or {}
        kind = resolve_type(MODELS, loss)
        if kind is CrossEntropyLoss and not loss.get('use_sigmoid'):
            return SOFTMAX_EXPLANATION
        return getattr(kind, 'explanation', '')


def _settings(config: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """Yield the dotted key and value of each setting that trains."""
    if not key:
        config = {name: config.get(name) for name in TRAINING_KEYS}
    if isinstance(config, list | tuple) and all(
        isinstance(part, dict) for part in config
    ):
        config = dict(enumerate(config))
    if isinstance(config, dict):
        for name, value in config.items():
            yield from _settings(value, f'{key}.{name}'.lstrip('.'))
    else:
        yield key, str(config)


def _prediction(sample: DetDataSample) -> dict[str, Any]:
    """Convert the prediction of an image for `Detections`."""
    found = sample.pred_instances.cpu().numpy()
    prediction = {key: found[key] for key in ('bboxes', 'scores', 'labels')}
    if 'mask_scores' in found:
        prediction['mask_scores'] = found.mask_scores
    if 'masks' in found:
        prediction['masks'] = encode_masks(found.masks)
    return prediction | {'img_id': sample.img_id}
