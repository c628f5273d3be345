"""The base of metrics on detections in COCO's or LVIS's format."""

import json
from abc import abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from torch import Tensor

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    encode_masks,
    prepare_ground_truth,
)
from mmdet_longtail.evaluation.functional.back_ends import BACK_ENDS
from mmdet_longtail.evaluation.functional.detections import check_new_image
from mmdet_longtail.evaluation.metrics.class_statistics_mixin import (
    ClassStatisticsMixin,
)
from mmdet_longtail.structures.annotation_fields import other_type
from mmdet_longtail.structures.class_statistics import (
    FREQUENCY_GROUPS,
    ClassGroup,
    bin_names,
    check_bin_edges,
)
from mmdet_longtail.utils.checks import check_choice
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.fileio import write_atomic


class DetectionFileMetric(ClassStatisticsMixin, BaseMetric):
    """Collect, validate and write detections, and evaluate them by group.

    A file whose images carry ``neg_category_ids`` is evaluated by the
    federated rules of LVIS, any other by those of COCO. Images of the file
    that the dataset does not give, as with its ``indices``, are left out of
    the evaluation, and a warning has their number.

    Counts of the training set decide the group of a class. Without
    ClassStatisticsHook they come from the first file that is given of
    ``class_statistics`` and ``train_ann_file``.

    Args:
        ann_file (str, optional): COCO or LVIS annotations of the validation
            set. None takes what the dataset loaded, by COCO's rules.
        metric (str | list[str]): 'bbox', 'segm', or both.
        bin_edges (Sequence[float], optional): More groups, by count: (10,
            100) makes the bins [0, 10), [10, 100), [100, inf).
        bin_by (str): The count that ``bin_edges`` splits, 'instance_count'
            or 'image_count'.
        class_statistics (str, optional): From tools/class_statistics.py.
        train_ann_file (str, optional): Annotations of the training set.
        annotation_format (str, optional): 'lvis' or 'coco'. None decides by
            the content of the file.
        back_end (str): 'fast' (hotcoco), or 'reference' (the slower
            evaluators of lvis and pycocotools, with the same results).
        format_only (bool): Only write the detections to ``outfile_prefix``.
        outfile_prefix (str, optional): Prefix of the files of detections:
            <prefix>.bbox.json, <prefix>.segm.json.
        backend_args (dict, optional): mmengine's file back end of
            ``ann_file``.
        **kwargs: Of mmengine's BaseMetric, such as ``prefix``.

    Attributes:
        groups (list[ClassGroup]): Rare, common and frequent classes, then
            the bins; empty before the first image.
        ground_truth (GroundTruth | None): The validation set; None without
            ``ann_file`` before an evaluation.

    Raises:
        LongTailError: An argument or a file is invalid, class statistics are
            missing or of other classes, detections are of classes or images
            that the validation set does not have, or an image is given twice.
    """

    max_detections: int | None = None
    statistics_keys = (
        f'{ClassStatisticsMixin.statistics_keys} or '
        'train_ann_file=<annotation file>'
    )

    def __init__(
        self,
        ann_file: str | None = None,
        metric: str | list[str] = 'bbox',
        bin_edges: Sequence[float] | None = None,
        bin_by: str = 'instance_count',
        class_statistics: str | None = None,
        train_ann_file: str | None = None,
        annotation_format: str | None = None,
        back_end: str = 'fast',
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = self.name = type(self).__name__
        self.metrics = [metric] if isinstance(metric, str) else list(metric)
        for iou_type in self.metrics or ['']:
            check_choice(name, 'metric', iou_type, 'bbox', 'segm')
        check_choice(name, 'bin_by', bin_by, 'instance_count', 'image_count')
        check_choice(name, 'back_end', back_end, *BACK_ENDS)
        rules = annotation_format or 'coco'
        check_choice(name, 'annotation_format', rules, 'coco', 'lvis')
        if bin_edges is not None:
            check_bin_edges(bin_edges, name)
        check(
            outfile_prefix is not None or not format_only,
            f'{name}: format_only=True needs an outfile_prefix to write to',
        )
        self.ann_file = ann_file
        self.bin_edges = bin_edges
        self.bin_by = bin_by
        self.class_statistics = class_statistics
        self.train_ann_file = train_ann_file
        self.annotation_format = annotation_format
        self.back_end = back_end
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix
        self.groups: list[ClassGroup] = []
        self.ground_truth: GroundTruth | None = None
        self._given: set[Hashable] = set()
        if ann_file is not None:
            iou_types = [] if format_only else self.metrics
            with get_local_path(ann_file, backend_args=backend_args) as path:
                self.ground_truth = GroundTruth.load(
                    path, iou_types, annotation_format, ann_file
                )
            if back_end == 'reference' and self.ground_truth.rules == 'lvis':
                import_lvis()

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, and raise errors of the batch."""
        if not self.results:
            self._given.clear()
            if self.ann_file is not None:
                self._prepare()
        for sample in data_samples:
            check_new_image(self.name, sample['img_id'], self._given)
            found = sample['pred_instances']
            prediction = {'img_id': sample['img_id']}
            for key in ('bboxes', 'scores', 'labels', 'mask_scores'):
                if key in found:
                    prediction[key] = found[key].cpu().numpy()
            if 'masks' in found:
                masks = found['masks']
                if isinstance(masks, Tensor):
                    masks = encode_masks(masks.detach().cpu().numpy())
                prediction['masks'] = np.fromiter(masks, object)
            height, width = sample['ori_shape'][:2]
            image = {'id': sample['img_id'], 'height': height, 'width': width}
            if self.ann_file is not None:
                self._check_prediction(prediction)
            else:
                check(
                    'instances' in sample,
                    f'{self.name}: the dataset hands over no annotations; '
                    "give ann_file=<annotation file>, or add 'instances' to "
                    'the meta_keys of PackDetInputs',
                )
                image['instances'] = sample['instances']
            self.results.append((image, prediction))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate what ``process`` kept on all ranks.

        Returns:
            dict[str, float]: Keys as in the class docstring, without the
            prefix.
        """
        check(results, f'{self.name}: the validation set has no image')
        images, predictions = zip(*results, strict=True)
        if self.ann_file is None:
            self.ground_truth = self._collect_ground_truth(images)
        self._prepare()
        given: set[Hashable] = set()
        for prediction in predictions:
            self._check_prediction(prediction)
            check_new_image(self.name, prediction['img_id'], given)
        truth = self._restrict(given)
        metrics: dict[str, float] = {}
        source = f'{self.name}: the predictions'
        for iou_type in self.metrics:
            detections = Detections.from_predictions(
                predictions, truth, iou_type, source
            )
            detections = self.select(detections)
            if self.outfile_prefix is not None:
                text = json.dumps(detections.as_results(truth))
                write_atomic(f'{self.outfile_prefix}.{iou_type}.json', text)
            if not self.format_only:
                spec = EvaluationSpec(
                    truth, detections, self.max_detections, self.back_end
                )
                if spec.warning:
                    MMLogger.get_current_instance().warning(spec.warning)
                for name, value in self.evaluate_detections(spec).items():
                    metrics[f'{iou_type}_{name}'] = value
        return metrics

    def reported_names(self) -> list[str]:
        """Return the names of the results, known before an evaluation."""
        if self.format_only:
            return []
        groups = [f'AP{name[0]}' for name in FREQUENCY_GROUPS]
        if self.bin_edges is not None:
            groups += [f'AP_{name}' for name in bin_names(self.bin_edges)]
        names = self.value_names(groups)
        return [f'{kind}_{name}' for kind in self.metrics for name in names]

    @abstractmethod
    def value_names(self, groups: Sequence[str]) -> list[str]:
        """Return the names of the results of one IoU type.

        Args:
            groups (Sequence[str]): The keys of the groups, such as 'APr'.
        """

    def select(self, detections: Detections) -> Detections:
        """Select the detections to evaluate and to write."""
        return detections

    @abstractmethod
    def evaluate_detections(self, spec: EvaluationSpec) -> dict[str, float]:
        """Evaluate the detections of one IoU type, and log the result."""

    def _prepare(self) -> GroundTruth:
        """Assign categories to labels, and classes to groups."""
        assert self.ground_truth is not None
        classes = (self.dataset_meta or {}).get('classes') or None
        truth = self.ground_truth = self.ground_truth.with_classes(classes)
        if not self.format_only:
            statistics = self.training_statistics()
            check_counted_classes(truth, statistics)
            self.groups = statistics.frequency_groups()
            if self.bin_edges is not None:
                self.groups += statistics.bin_groups(
                    self.bin_edges, self.bin_by
                )
        return truth

    def _restrict(self, given: set[Hashable]) -> GroundTruth:
        """Return the validation set of the images that the dataset gave."""
        truth = self.ground_truth
        assert truth is not None
        missing = [id for id in truth.image_ids if id not in given]
        if not missing:
            return truth
        MMLogger.get_current_instance().warning(
            f'{self.name}: only {len(given):,} of the '
            f'{len(truth.images):,} images of {truth.source} are evaluated, '
            f'the dataset does not give the others, such as {missing[0]!r}; '
            'are its indices or filter_cfg meant, and is it the right '
            'ann_file?'
        )
        content = truth.dataset
        kept = (a for a in content['annotations'] if a['image_id'] in given)
        dataset = content | {
            'images': [i for i in content['images'] if i['id'] in given],
            'annotations': [dict(a, id=id) for id, a in enumerate(kept, 1)],
        }
        part = GroundTruth(dataset, truth.source, truth.rules)
        return part.with_classes((self.dataset_meta or {}).get('classes'))

    def _collect_ground_truth(self, images: Sequence[dict]) -> GroundTruth:
        """Convert the instances that the dataset loaded to COCO's format."""
        pairs = ((image, i) for image in images for i in image['instances'])
        annotations = []
        for image, instance in pairs:
            x1, y1, x2, y2 = instance['bbox']
            annotation: dict[str, Any] = dict(image_id=image['id'])
            annotation['category_id'] = int(instance['bbox_label'])
            annotation['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            annotation['area'] = (x2 - x1) * (y2 - y1)
            annotation['iscrowd'] = instance.get('ignore_flag', 0)
            if 'mask' in instance:
                annotation['segmentation'] = instance['mask']
            annotations.append(annotation)
        classes = enumerate((self.dataset_meta or {})['classes'])
        dataset = {
            'images': images,
            'annotations': annotations,
            'categories': [{'id': k, 'name': name} for k, name in classes],
        }
        source = f'{self.name}: the dataset'
        prepare_ground_truth(dataset, source, 'segm' in self.metrics)
        return GroundTruth(dataset, source, self.annotation_format)

    def _check_prediction(self, prediction: dict) -> None:
        """Validate that a prediction is of this validation set."""
        truth = self.ground_truth
        assert truth is not None
        image, C = prediction['img_id'], truth.num_classes
        label = prediction['labels'].max(initial=-1)
        if image not in truth.image_of:
            other = other_type(image, truth.image_ids)
            raise LongTailError(
                f'{truth.source}: has no image {image!r}, but '
                + (
                    other
                    or "there are detections for it; the metric's ann_file "
                    "must be the dataset's"
                )
            )
        check(
            label < C,
            f'{truth.source}: has {C} classes, but a detection in image '
            f'{image!r} has the label {label}; set num_classes of the heads '
            f'to {C}',
        )
        check(
            'masks' in prediction or 'segm' not in self.metrics,
            f"{self.name}: metric has 'segm', but the detections have no "
            "masks; use metric='bbox'",
        )
