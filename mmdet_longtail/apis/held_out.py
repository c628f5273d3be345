"""A part of the training set to choose a parameter on.

Shapes: I images, C classes.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader

from mmdet_longtail.apis.runner import failures_explained
from mmdet_longtail.apis.trained_detector import TrainedDetector, innermost
from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import read_ground_truth
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
)
from mmdet_longtail.utils.console import quiet, table_console

MEANS = ('AP', 'APr', 'APc', 'APf')


def hold_out(annotations: Annotations, share: float, seed: int) -> np.ndarray:
    """Draw images to hold out.

    A class of two images or more has one on each side, the rarest classes
    first, as far as they do not stand in each other's way. The rest is drawn
    at random, until the share is reached.

    Args:
        annotations (Annotations): Of I images.
        share (float): Of the images, between 0 and 1.
        seed (int): The same gives the same images.

    Returns:
        np.ndarray: (I,) bool, which are held out.
    """
    num_images = annotations.num_images
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    kept: set[int] = set()
    image_index, class_index = annotations.image_classes()
    order = rng.permutation(len(image_index))
    image_index, class_index = image_index[order], class_index[order]
    order = np.argsort(class_index, kind='stable')
    ends = np.cumsum(np.bincount(class_index))
    by_class = np.split(image_index[order], ends[:-1]) if len(ends) else []
    for images in sorted(by_class, key=len):
        if len(images) < 2:
            continue
        for side, other in ((held, kept), (kept, held)):
            if side.isdisjoint(images):
                side.update([i for i in images if i not in other][:1])
    rest = [i for i in rng.permutation(num_images) if i not in held | kept]
    held.update(rest[: max(round(share * num_images) - len(held), 0)])
    is_held_out = np.zeros(num_images, dtype=bool)
    is_held_out[list(held)] = True
    return is_held_out


@dataclass
class Parts:
    """The two parts of a training set, as annotation files.

    Args:
        detector (TrainedDetector): Has the data and the counts.
        kept (str): The larger part.
        held_out (str): The part to choose on.
    """

    detector: TrainedDetector
    kept: str
    held_out: str

    def load(self, ann_file: str, with_boxes: bool = False) -> Any:
        """Load images as a test does.

        Args:
            ann_file (str): One of the parts.
            with_boxes (bool): Whether the images bring their boxes, in the
                scale that the detector sees them in. Defaults to False.

        Returns:
            DataLoader: Of the images, in their order.

        Raises:
            LongTailError: If the config does not say how a test loads
                images.
        """
        config = self.detector.config
        loader = config.get('val_dataloader') or config.get('test_dataloader')
        if not loader or 'pipeline' not in innermost(loader.dataset):
            raise LongTailError(
                'the config has no val_dataloader with a pipeline, by which '
                'training images are loaded for a test'
            )
        pipeline = innermost(loader.dataset).pipeline
        if with_boxes:
            pipeline = load_boxes_before_resize(pipeline)
        dataset = copy.deepcopy(innermost(config.train_dataloader.dataset))
        dataset.update(ann_file=ann_file, pipeline=pipeline, test_mode=True)
        for key in ('filter_cfg', 'indices'):
            dataset.pop(key, None)
        with quiet():
            return Runner.build_dataloader(
                dict(
                    dataset=dataset,
                    sampler=dict(type='DefaultSampler', shuffle=False),
                    batch_size=loader.get('batch_size', 1),
                    num_workers=loader.get('num_workers', 0),
                ),
                seed=0,
            )

    def evaluate(self, model: Any, description: str) -> dict[str, float]:
        """Compute the AP on the held-out split.

        Args:
            model (nn.Module): The detector.
            description (str): What is evaluated.

        Returns:
            dict[str, float]: The values of `MEANS`, 0..1, or -1 where there
            is no class.
        """
        loader = self.load(self.held_out)
        with quiet():
            metric = FrequencyGroupMetric(ann_file=self.held_out)
        metric.set_class_statistics(self.detector.statistics)
        metric.dataset_meta = loader.dataset.metainfo
        for data in progress(self.detector, loader, description):
            samples = model.test_step(data)
            metric.process(data, [sample.to_dict() for sample in samples])
        with quiet():
            found = metric.evaluate(len(loader.dataset))
        return {mean: found[f'{metric.prefix}/bbox_{mean}'] for mean in MEANS}

    def choose(
        self,
        model: Any,
        name: str,
        values: Sequence[float],
        change: Callable[[float], None],
    ) -> float:
        """Find the value with the best AP, and print the table of all.

        Args:
            model (nn.Module): The detector.
            name (str): What the parameter is called.
            values (Sequence[float]): What it may be; the first of equally
                good ones wins.
            change (Callable): Puts a value into the model.

        Raises:
            LongTailError: If no box can be evaluated.
        """
        found = {}
        for value in values:
            change(value)
            found[value] = self.evaluate(model, f'{name} {value:g}')
        best = max(found, key=lambda value: found[value]['AP'])
        if found[best]['AP'] < 0:
            raise LongTailError(
                'the images that are held out have no box; give a larger '
                '--held-out'
            )
        table = Table(
            name,
            *MEANS,
            title=f'AP on {self._num_held_out()} training images held out',
        )
        for value, means in found.items():
            cells = [
                f'{100 * ap:.2f}' if ap >= 0 else '-' for ap in means.values()
            ]
            style = 'bold' if value == best else None
            table.add_row(f'{value:g}', *cells, style=style)
        table_console().print(table)
        print(f'{name} {best:g} has the best AP and is taken.')
        return best

    def _num_held_out(self) -> int:
        with open(self.held_out, encoding='utf-8') as file:
            return len(json.load(file)['images'])


@contextmanager
def split_training_set(
    detector: TrainedDetector, share: float, seed: int
) -> Iterator[Parts]:
    """Write the two parts into a folder that is gone afterwards.

    Raises:
        LongTailError: If the annotations are broken, or one part is empty.
    """
    source = str(detector.dataset.ann_file)
    backend_args = detector.dataset.backend_args
    with get_local_path(source, backend_args=backend_args) as path:
        content = read_ground_truth(path, ['bbox'], source)
    is_held_out = hold_out(parse_annotations(content, source), share, seed)
    if is_held_out.all() or not is_held_out.any():
        raise LongTailError(
            f'{source}: of its {len(is_held_out)} images '
            f'{is_held_out.sum()} would be held out; expected some on both '
            'sides, give another --held-out'
        )
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for name, is_in in (('kept', ~is_held_out), ('held_out', is_held_out)):
            images = [
                image
                for image, is_chosen in zip(content['images'], is_in)
                if is_chosen
            ]
            ids = {image['id'] for image in images}
            annotations = [
                annotation
                for annotation in content['annotations']
                if annotation['image_id'] in ids
            ]
            part = content | dict(images=images, annotations=annotations)
            paths[name] = os.path.join(folder, f'{name}.json')
            with open(paths[name], 'w', encoding='utf-8') as file:
                json.dump(part, file)
        MMLogger.get_instance('held_out', log_level='ERROR')
        yield Parts(detector, **paths)


def progress(
    detector: TrainedDetector, loader: DataLoader, description: str
) -> Iterator[Any]:
    """Yield the batches and show the progress."""
    with failures_explained(detector.config):
        yield from track(loader, description, console=Console(file=sys.stdout))
