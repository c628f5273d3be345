import json
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.dist import is_main_process
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    Detections,
    Evaluation,
    EvaluationSpec,
    evaluate,
    write_per_class_file,
)
from mmdet_longtail.evaluation.functional.back_ends import BACK_ENDS
from mmdet_longtail.evaluation.functional.ground_truth import (
    GroundTruth,
    check_federated,
    find_annotation_format,
    read_ground_truth,
)
from mmdet_longtail.evaluation.metrics.class_statistics_mixin import (
    CountedMetricMixin,
)
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
    check_bin_edges,
)
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.fileio import write_atomic


@METRICS.register_module()
class FrequencyGroupMetric(CountedMetricMixin, CocoMetric):
    """Average precision of rare, common and frequent classes.

    For every IoU type the results are, in this order: AP, AP50, AP75, APs,
    APm, APl, then one AP per group of classes: APr, APc and APf, and
    ``AP_<bin>`` when ``bin_edges`` is given. A group's AP is the mean over
    its classes of each class's AP. Values lie in 0..1 and are not rounded; a
    mean over no class at all is -1. After them come ``<mean>_classes``, the
    number of classes behind each mean, and ``classes_without_instances``,
    the number of classes that have no instance in the validation set: these
    are in no mean. Keys read ``frequency_group/bbox_APr``; to keep the best
    checkpoint by one of them, mmengine needs ``rule='greater'`` beside
    ``save_best``.

    Which class belongs to which group is decided by counts of the training
    set. They come from ClassStatisticsHook; without it, from
    ``class_statistics``, else from ``train_ann_file``.

    A file whose images carry ``neg_category_ids`` is evaluated by the
    federated rules of LVIS, any other by those of COCO.

    After an evaluation ``evaluations['bbox']`` holds the AP of each class and
    more, see `Evaluation`, and ``statistics`` the counts that were used.

    Args:
        ann_file (str, optional): COCO or LVIS annotations of the validation
            set. None takes what the data set loaded, by COCO's rules.
        metric (str | list[str]): 'bbox', 'segm', or both.
        bin_edges (Sequence[float], optional): More groups, by count: (10,
            100) makes the bins [0, 10), [10, 100), [100, inf).
        bin_by (str): The count that ``bin_edges`` splits, 'instance_count'
            or 'image_count'.
        class_statistics (str, optional): A file that
            tools/class_statistics.py wrote.
        train_ann_file (str, optional): COCO or LVIS annotations of the
            training set, counted when nothing else gave statistics.
        annotation_format (str, optional): 'lvis' or 'coco'. None looks at
            the file.
        max_detections (int, optional): The best detections that count: of an
            image by LVIS's rules (default 300), of an image and class by
            COCO's (default 100).
        per_class_file (str, optional): A CSV file to write, one line a class
            in label order: its name, counts and group, then for every IoU
            type the columns of `Evaluation.per_class`.
        back_end (str): 'fast' (hotcoco), or 'reference' (lvis' or
            pycocotools' evaluator), which gives the same, later.
        format_only (bool): Only write the detections to ``outfile_prefix``.
        outfile_prefix (str, optional): Where to keep the detections:
            <prefix>.bbox.json, <prefix>.segm.json.
        backend_args (dict, optional): mmengine's file back end of
            ``ann_file``.
        collect_device (str): 'cpu' or 'gpu', used to collect over ranks.
        prefix (str, optional): Replaces 'frequency_group' in the keys.

    Raises:
        LongTailError: An argument or a file cannot work, statistics are
            missing or of other classes, detections are of classes or images
            that the validation set does not have.

    Source: Gupta et al., LVIS, CVPR 2019; Lin et al., Microsoft COCO, 2014.
    """

    default_prefix = 'frequency_group'

    statistics_keys = (
        f'{CountedMetricMixin.statistics_keys} or '
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
        max_detections: int | None = None,
        per_class_file: str | None = None,
        back_end: str = 'fast',
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        metrics = [metric] if isinstance(metric, str) else list(metric)
        if not metrics:
            raise LongTailError(
                f"{self._name}: metric is empty, expected 'bbox', 'segm' or "
                'both'
            )
        for iou_type in metrics:
            self._check_choice('metric', iou_type, ('bbox', 'segm'))
        self._check_choice('bin_by', bin_by, ('instance_count', 'image_count'))
        self._check_choice('back_end', back_end, tuple(BACK_ENDS))
        if annotation_format is not None:
            self._check_choice(
                'annotation_format', annotation_format, ('coco', 'lvis')
            )
        if bin_edges is not None:
            check_bin_edges(bin_edges, self._name)
        if max_detections is not None and max_detections < 1:
            raise LongTailError(
                f'{self._name}: max_detections must be at least 1, found '
                f'{max_detections}'
            )
        if format_only and outfile_prefix is None:
            raise LongTailError(
                f'{self._name}: format_only=True needs an outfile_prefix to '
                'write to'
            )
        super().__init__(
            metric=metrics,
            format_only=format_only,
            outfile_prefix=outfile_prefix,
            backend_args=backend_args,
            collect_device=collect_device,
            prefix=prefix,
        )
        self.bin_edges = bin_edges
        self.bin_by = bin_by
        self.class_statistics = class_statistics
        self.train_ann_file = train_ann_file
        self.annotation_format = annotation_format
        self.max_detections = max_detections
        self.per_class_file = per_class_file
        self.back_end = back_end
        self.ann_file = ann_file
        self.groups: list[ClassGroup] = []
        self.evaluations: dict[str, Evaluation] = {}
        self.ground_truth: GroundTruth | None = None
        if ann_file is not None:
            self._read(ann_file)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): Detections, and what the data set
                says about their images.

        Raises:
            LongTailError: See the class docstring; at the first batch that
                shows it, not after the last.
        """
        is_first = not self.results
        super().process(data_batch, data_samples)
        if self._coco_api is not None:
            if is_first:
                self._prepare()
            self._check_predictions(self.results[-len(data_samples) :])

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate the detections of the whole validation set.

        Args:
            results (list): What ``process`` kept, of all ranks.

        Returns:
            dict[str, float]: The means and the numbers of classes behind
            them, keys as in the class docstring, without the prefix.

        Raises:
            LongTailError: See the class docstring.
        """
        if not results:
            raise LongTailError(
                f'{self._name}: the validation set has no image'
            )
        images, predictions = zip(*results, strict=True)
        if self._coco_api is None:
            with TemporaryDirectory() as folder:
                self._read(self.gt_to_coco_json(images, f'{folder}/truth'))
        ground_truth = self._prepare()
        self._check_predictions(results)
        metrics: dict[str, float] = {}
        for iou_type in self.metrics:
            detections = Detections.from_predictions(
                predictions, ground_truth, iou_type
            )
            detections.check(ground_truth, f'{self._name}: the predictions')
            detections = self.select(detections)
            if self.outfile_prefix is not None:
                write_atomic(
                    f'{self.outfile_prefix}.{iou_type}.json',
                    json.dumps(detections.as_results(ground_truth)),
                )
            if not self.format_only:
                values = self.evaluate_detections(
                    ground_truth, detections, iou_type
                )
                for name, value in values.items():
                    metrics[f'{iou_type}_{name}'] = value
        if self.per_class_file is not None and self.evaluations:
            write_per_class_file(
                self.per_class_file, self.evaluations, self.statistics
            )
        return metrics

    def select(self, detections: Detections) -> Detections:
        """Choose the detections that are evaluated and written."""
        return detections

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_choice(
        self, key: str, value: object, choices: Sequence[str]
    ) -> None:
        if value not in choices:
            raise LongTailError(
                f'{self._name}: {key} is {value!r}, expected '
                f'{" or ".join(map(repr, choices))}'
            )

    def _read(self, ann_file: str) -> None:
        """Read the validation set's annotations and choose the rules."""
        iou_types = [] if self.format_only else self.metrics
        with get_local_path(ann_file, backend_args=self.backend_args) as path:
            dataset = read_ground_truth(path, iou_types, ann_file)
        self._rules = self.annotation_format or find_annotation_format(dataset)
        if self._rules == 'lvis':
            check_federated(dataset, ann_file)
            if self.back_end == 'reference':
                import_lvis()
        self._source = ann_file
        # CocoMetric asks the data set for objects where this is None.
        self._coco_api = dataset

    def _prepare(self) -> GroundTruth:
        """Find the category of each label, and statistics of the same."""
        assert self._coco_api is not None
        classes = (self.dataset_meta or {}).get('classes') or None
        ground_truth = GroundTruth(
            self._coco_api, self._source, self._rules, classes
        )
        self.ground_truth = ground_truth
        if not self.format_only and is_main_process():
            statistics = self.training_statistics()
            check_counted_classes(ground_truth, statistics)
            self.groups = statistics.frequency_groups()
            if self.bin_edges is not None:
                self.groups += statistics.bin_groups(
                    self.bin_edges, self.bin_by
                )
        return ground_truth

    def read_statistics(self) -> ClassStatistics:
        if self.class_statistics is None and self.train_ann_file is not None:
            return ClassStatistics.from_annotation_file(self.train_ann_file)
        return super().read_statistics()

    def _check_predictions(self, results: Sequence[tuple[dict, dict]]) -> None:
        """Check that predictions are of this validation set."""
        ground_truth = self.ground_truth
        assert ground_truth is not None
        for _, prediction in results:
            image = prediction['img_id']
            labels = prediction['labels']
            if image not in ground_truth.image_of:
                raise LongTailError(
                    f'{self._source}: has no image {image!r}, but there are '
                    "detections for it; the metric's ann_file must be the "
                    "data set's"
                )
            if len(labels) and labels.max() >= ground_truth.num_classes:
                C = ground_truth.num_classes
                raise LongTailError(
                    f'{self._source}: has {C} classes, but a detection in '
                    f'image {image!r} has the label {labels.max()}; set '
                    f'num_classes of the heads to {C}'
                )
            if 'segm' in self.metrics and 'masks' not in prediction:
                raise LongTailError(
                    f"{self._name}: metric has 'segm', but the detections "
                    "have no masks; use metric='bbox'"
                )

    def evaluate_detections(
        self, ground_truth: GroundTruth, detections: Detections, iou_type: str
    ) -> dict[str, float]:
        """Evaluate one IoU type, and log the table."""
        logger = MMLogger.get_current_instance()
        logger.info(f'Evaluating {iou_type} by the rules of {self._rules}...')
        spec = EvaluationSpec(
            ground_truth, detections, self.max_detections, self.back_end
        )
        evaluation = evaluate(spec, self.groups)
        logger.info(f'\n{evaluation.table()}')
        self.evaluations[iou_type] = evaluation
        return evaluation.metrics()
