"""Choice of a parameter on a held-out split of the training set."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from torch.utils.data import Subset

from mmdet_longtail.apis.runner import failures_explained
from mmdet_longtail.apis.trained_detector import TrainedDetector, load_batches
from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import read_ground_truth
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
)
from mmdet_longtail.utils.console import quiet, table_console
from mmdet_longtail.utils.registry import innermost
from mmdet_longtail.utils.tables import format_cells, make_table

MEANS = ('AP', 'APr', 'APc', 'APf')


def hold_out(
    annotations: Annotations, fraction: float, seed: int
) -> np.ndarray:
    """Draw images to hold out; bool, one per image.

    Each class of two or more images gets one image on each side, the rarest
    classes first, unless a rarer class needs its images on one side. The
    other images are drawn at random until the fraction is reached.
    """
    num_images = annotations.num_images
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    kept: set[int] = set()
    pairs = rng.permutation(np.stack(annotations.image_classes(), 1))
    by_class = [
        pairs[pairs[:, 1] == c, 0] for c in range(len(annotations.class_names))
    ]
    for images in sorted(by_class, key=len):
        if len(images) < 2:
            continue
        for side, other in ((held, kept), (kept, held)):
            if side.isdisjoint(images):
                side.update([i for i in images if i not in other][:1])
    rest = [i for i in rng.permutation(num_images) if i not in held | kept]
    held.update(rest[: max(round(fraction * num_images) - len(held), 0)])
    return np.isin(np.arange(num_images), list(held))


def hold_out_of_file(
    content: dict[str, Any], source: str, fraction: float, seed: int
) -> np.ndarray:
    """Draw images of an annotation file to hold out; bool, one per image.

    Raises:
        LongTailError: If the content is broken, or one part is empty.
    """
    annotations = parse_annotations(content, source)
    is_held_out = hold_out(annotations, fraction, seed)
    check(
        0 < is_held_out.sum() < len(is_held_out),
        f'{source}: of its {len(is_held_out)} images {is_held_out.sum()} '
        'would be held out; expected images in both parts, give another '
        '--held-out',
    )
    return is_held_out


def select_images(
    content: Mapping[str, Any], members: np.ndarray
) -> dict[str, Any]:
    """Return the content of an annotation file with some of its images.

    ``members`` is bool, one per image.
    """
    images = list(compress(content['images'], members))
    ids = {image['id'] for image in images}
    boxes = [b for b in content['annotations'] if b['image_id'] in ids]
    return {**content, 'images': images, 'annotations': boxes}


@dataclass
class HeldOutSplit:
    """A detector's training set in two parts.

    Args:
        detector (TrainedDetector): Detector with its training set.
        fraction (float): Fraction of the images to hold out, in (0, 1).
        seed (int): Random seed.
    """

    detector: TrainedDetector
    fraction: float
    seed: int

    @cached_property
    def held_out(self) -> dict[str, Any]:
        """The held-out part, as the content of an annotation file.

        Raises:
            LongTailError: If the annotations are broken, or one part is
                empty.
        """
        dataset = self.detector.dataset
        source = str(dataset.ann_file)
        with get_local_path(source, backend_args=dataset.backend_args) as path:
            content = read_ground_truth(path, ['bbox'], source)
        held_out = hold_out_of_file(content, source, self.fraction, self.seed)
        return select_images(content, held_out)

    def batches(self, held_out: bool, description: str) -> Iterator[Any]:
        """Yield the batches of one part, loaded as in a test.

        Boxes are in the scale of the detector's input.

        Raises:
            LongTailError: If the config has no test pipeline.
        """
        config = self.detector.config
        loader = config.get('val_dataloader') or config.get('test_dataloader')
        check(
            loader and 'pipeline' in innermost(loader.dataset),
            'the config has no val_dataloader with a pipeline, by which '
            'training images are loaded for a test',
        )
        pipeline = load_boxes_before_resize(innermost(loader.dataset).pipeline)
        settings = copy.deepcopy(innermost(config.train_dataloader.dataset))
        for key in ('filter_cfg', 'indices'):
            settings.pop(key, None)
        settings.update(pipeline=pipeline, test_mode=True)
        ids = {image['id'] for image in self.held_out['images']}
        with failures_explained(config):
            with quiet():
                dataset = DATASETS.build(settings)
            part = [
                i
                for i in range(len(dataset))
                if (dataset.get_data_info(i)['img_id'] in ids) == held_out
            ]
            yield from load_batches(Subset(dataset, part), loader, description)

    def choose(
        self,
        name: str,
        values: Sequence[float],
        predict: Callable[[Any], Iterable[Sequence[DetDataSample]]],
    ) -> tuple[float, dict[float, np.ndarray]]:
        """Find the value with the best AP, and print the AP of each value.

        Of equal APs the first value wins.

        Args:
            name (str): Name of the parameter.
            values (Sequence[float]): Candidates.
            predict (Callable): Function that yields the predictions of a
                batch under each value.

        Returns:
            tuple[float, dict[float, np.ndarray]]: The value, and `MEANS` in
            percent by value, NaN where there is no box.

        Raises:
            LongTailError: If the held-out part has no box.
        """
        num_images = len(self.held_out['images'])
        predictions: dict[float, list[dict]] = {value: [] for value in values}
        title = f'Testing {len(values)} values of {name}'
        for data in self.batches(True, title):
            for kept, samples in zip(predictions.values(), predict(data)):
                kept.extend(map(_boxes_of, samples))
        metric = self._metric()
        found = {}
        for value in values:
            metric.process({}, predictions.pop(value))
            with quiet():
                metrics = metric.evaluate(num_images)
            prefix = f'{metric.prefix}/bbox_'
            means = np.array([metrics[prefix + mean] for mean in MEANS])
            found[value] = np.where(means < 0, np.nan, 100 * means)
        best = max(found, key=lambda value: found[value][0])
        check(
            found[best][0] >= 0,
            'the held-out images have no box; give a larger --held-out',
        )
        rows = [
            [f'{value:g}', *format_cells(means, '.2f', '-')]
            for value, means in found.items()
        ]
        title = f'AP on {num_images} held-out training images'
        table_console().print(make_table([name, *MEANS], rows, title))
        print(f'{name} {best:g} has the best AP and is used.')
        return best, found

    def _metric(self) -> FrequencyGroupMetric:
        """Build the metric of the held-out part."""
        MMLogger.get_instance('held_out', log_level='ERROR')
        with TemporaryDirectory() as folder, quiet():
            path = Path(folder, 'held_out.json')
            path.write_text(json.dumps(self.held_out), encoding='utf-8')
            metric = FrequencyGroupMetric(str(path))
        assert self.detector.statistics is not None
        metric.set_class_statistics(self.detector.statistics)
        metric.dataset_meta = self.detector.dataset.metainfo
        return metric


def _boxes_of(sample: DetDataSample) -> dict[str, Any]:
    """Return what the metric needs of a prediction, without masks."""
    found = sample.pred_instances
    boxes = {k: found[k].cpu() for k in ('bboxes', 'scores', 'labels')}
    return {
        'img_id': sample.img_id,
        'ori_shape': sample.ori_shape,
        'pred_instances': boxes,
    }
