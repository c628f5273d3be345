"""Choice of a parameter on a held-out split of the training set.

Shapes: I images.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmdet_longtail.apis.runner import failures_explained, innermost
from mmdet_longtail.apis.trained_detector import (
    TrainedDetector,
    build_loader,
    show_progress,
)
from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import read_ground_truth
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
)
from mmdet_longtail.utils.console import quiet, table_console
from mmdet_longtail.utils.tables import format_cells, make_table

MEANS = ('AP', 'APr', 'APc', 'APf')


def hold_out(annotations: Annotations, share: float, seed: int) -> np.ndarray:
    """Draw images to hold out.

    Each class of two or more images gets one image on each side, the rarest
    classes first, unless a rarer class needs its images on one side. The
    other images are drawn at random until the share is reached.

    Args:
        annotations (Annotations): Annotations of I images.
        share (float): Fraction of the images, between 0 and 1.
        seed (int): Random seed.

    Returns:
        np.ndarray: (I,) bool, True for a held-out image.
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
    return np.isin(np.arange(num_images), list(held))


@dataclass
class HeldOutSplit:
    """The two parts of a training set, as annotation files.

    Args:
        detector (TrainedDetector): Detector with the config of the data.
        kept (Path): Annotation file of the larger part.
        held_out (Path): Annotation file of the held-out part.
    """

    detector: TrainedDetector
    kept: Path
    held_out: Path

    def load(self, ann_file: Path, with_boxes: bool = False) -> Any:
        """Build a loader of one part, with the images of a test.

        Args:
            ann_file (Path): `kept` or `held_out`.
            with_boxes (bool): Whether to load boxes, in the scale of the
                detector's input. Defaults to False.

        Raises:
            LongTailError: If the config has no test pipeline.
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
        for key in ('filter_cfg', 'indices'):
            dataset.pop(key, None)
        dataset.update(
            ann_file=str(ann_file), pipeline=pipeline, test_mode=True
        )
        return build_loader(dataset, loader)

    def batches(self, loader: DataLoader, description: str) -> Iterator[Any]:
        """Yield the batches of a loader, with progress and plain errors."""
        with failures_explained(self.detector.config):
            yield from show_progress(loader, description)

    def evaluate(self, model: Any, description: str) -> dict[str, float]:
        """Compute the AP on the held-out part.

        Returns:
            dict[str, float]: The values of `MEANS`, 0..1, or -1 where there
            is no class.
        """
        loader = self.load(self.held_out)
        with quiet():
            metric = FrequencyGroupMetric(ann_file=str(self.held_out))
        assert self.detector.statistics is not None
        metric.set_class_statistics(self.detector.statistics)
        metric.dataset_meta = loader.dataset.metainfo
        for data in self.batches(loader, description):
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
        """Return the value with the best AP, and print the AP of each value.

        Args:
            model (nn.Module): Detector to evaluate.
            name (str): Name of the parameter.
            values (Sequence[float]): Candidates; of equal APs the first wins.
            change (Callable): Function that sets a value in the model.

        Raises:
            LongTailError: If the held-out part has no box.
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
        num_images = len(json.loads(self.held_out.read_text())['images'])
        rows = []
        for value, means in found.items():
            cells = [100 * ap if ap >= 0 else np.nan for ap in means.values()]
            rows.append([f'{value:g}', *format_cells(cells, '.2f', '-')])
        title = f'AP on {num_images} training images held out'
        table_console().print(make_table([name, *MEANS], rows, title))
        print(f'{name} {best:g} has the best AP and is taken.')
        return best


@contextmanager
def split_training_set(
    detector: TrainedDetector, share: float, seed: int
) -> Iterator[HeldOutSplit]:
    """Write the two parts of the training set into a temporary folder.

    Args:
        detector (TrainedDetector): Detector with its training set.
        share (float): Fraction of the images to hold out.
        seed (int): Random seed.

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
    MMLogger.get_instance('held_out', log_level='ERROR')
    with TemporaryDirectory() as folder:
        split = HeldOutSplit(
            detector, Path(folder, 'kept.json'), Path(folder, 'held_out.json')
        )
        for path, side in ((split.kept, False), (split.held_out, True)):
            images = [
                image
                for image, is_held in zip(content['images'], is_held_out)
                if is_held == side
            ]
            ids = {image['id'] for image in images}
            boxes = [b for b in content['annotations'] if b['image_id'] in ids]
            part = content | dict(images=images, annotations=boxes)
            path.write_text(json.dumps(part), encoding='utf-8')
        yield split
