import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.dist import is_main_process
from mmengine.fileio import load
from mmengine.logging import MMLogger
from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.bins import bin_index_of, bin_names, check_bin_edges
from mmdet_longtail.compat import import_lvis
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.files import write_whole
from mmdet_longtail.metrics.ground_truth import (
    check_federated,
    find_annotation_format,
    label_categories,
    read_ground_truth,
)
from mmdet_longtail.metrics.precision import (
    average_precisions,
    coco_in_memory,
    coco_precision,
    lvis_precision,
    mean_average_precision,
)
from mmdet_longtail.statistics import ClassStatistics

RULES = {'coco': coco_precision, 'lvis': lvis_precision}
MAX_DETECTIONS = {'coco': 100, 'lvis': 300}


@dataclass(frozen=True)
class ClassGroup:
    """Classes that share one mean.

    Args:
        key (str): The name of the mean, such as 'APr'.
        name (str): What the group is called, such as 'rare'.
        members (np.ndarray): (C,) bool, the classes in the group.
    """

    key: str
    name: str
    members: np.ndarray


def frequency_groups(statistics: ClassStatistics) -> list[ClassGroup]:
    """Group the classes into rare, common and frequent.

    Args:
        statistics (ClassStatistics): Counts of the training set.

    Returns:
        list[ClassGroup]: Three groups, with the keys APr, APc and APf.
    """
    names = np.array(statistics.frequency_group())
    return [
        ClassGroup(f'AP{name[0]}', name, names == name)
        for name in ('rare', 'common', 'frequent')
    ]


def bin_groups(
    statistics: ClassStatistics,
    bin_by: str,
    bin_edges: Sequence[float],
) -> list[ClassGroup]:
    """Group the classes into half-open bins of a count.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        bin_by (str): 'image_count' or 'instance_count'.
        bin_edges (Sequence[float]): Positive, each larger than the one
            before. (10, 100) makes the bins [0, 10), [10, 100), [100, inf).

    Returns:
        list[ClassGroup]: One group a bin, empty ones too, with keys such as
        AP_below_10, AP_10_to_100 and AP_from_100.
    """
    counts = getattr(statistics, bin_by)
    bin_index = bin_index_of(counts, bin_edges)
    return [
        ClassGroup(f'AP_{name}', name, bin_index == g)
        for g, name in enumerate(bin_names(bin_edges))
    ]


@METRICS.register_module()
class FrequencyGroupMetric(CocoMetric):
    """Average precision of rare, common and frequent classes.

    For every IoU type the results are, in this order: AP, AP50, AP75, APs,
    APm, APl, then one AP per group of classes: APr, APc and APf, or
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

    After an evaluation ``per_class_ap['bbox']`` holds the AP of each class,
    (C,) in label order, NaN for a class without validation instances, and
    ``statistics`` the counts that were used.

    Args:
        ann_file (str, optional): COCO or LVIS annotations of the validation
            set. None takes what the data set loaded, by COCO's rules.
        metric (str | list[str]): 'bbox', 'segm', or both.
        bin_edges (Sequence[float], optional): Groups by count instead of
            rare, common and frequent: (10, 100) makes the bins [0, 10),
            [10, 100), [100, inf).
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
            in label order: its name, counts, group and AP, which is empty
            for a class without validation instances.
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
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        metrics = [metric] if isinstance(metric, str) else list(metric)
        if not metrics:
            raise LongTailError(
                "FrequencyGroupMetric: metric is empty, expected 'bbox', "
                "'segm' or both"
            )
        for iou_type in metrics:
            _check_choice('metric', iou_type, ('bbox', 'segm'))
        _check_choice('bin_by', bin_by, ('instance_count', 'image_count'))
        if annotation_format is not None:
            _check_choice(
                'annotation_format', annotation_format, ('coco', 'lvis')
            )
        if bin_edges is not None:
            check_bin_edges(bin_edges, 'FrequencyGroupMetric')
        if max_detections is not None and max_detections < 1:
            raise LongTailError(
                'FrequencyGroupMetric: max_detections must be at least 1, '
                f'found {max_detections}'
            )
        if format_only and outfile_prefix is None:
            raise LongTailError(
                'FrequencyGroupMetric: format_only=True needs an '
                'outfile_prefix to write to'
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
        self.ann_file = ann_file
        self.statistics: ClassStatistics | None = None
        self.groups: list[ClassGroup] = []
        self.per_class_ap: dict[str, np.ndarray] = {}
        if ann_file is not None:
            self._read_ground_truth(ann_file)

    def set_class_statistics(self, statistics: ClassStatistics) -> None:
        """Take the counts that decide the groups.

        Args:
            statistics (ClassStatistics): Counts of the training set.
        """
        self.statistics = statistics

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
        first = not self.results
        super().process(data_batch, data_samples)
        if self._coco_api is not None:
            if first:
                self._check_classes()
            self._check_results(self.results[-len(data_samples) :])

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
                'FrequencyGroupMetric: the validation set has no image'
            )
        ground_truths, predictions = zip(*results, strict=True)
        with tempfile.TemporaryDirectory() as folder:
            outfile_prefix = self.outfile_prefix or f'{folder}/results'
            if self._coco_api is None:
                self._read_ground_truth(
                    self.gt_to_coco_json(ground_truths, outfile_prefix)
                )
            self._check_classes()
            self._check_results(results)
            files = self.results2json(predictions, outfile_prefix)
            if self.format_only:
                return {}
            metrics = {}
            for iou_type in self.metrics:
                metrics.update(self._evaluate(iou_type, load(files[iou_type])))
        if self.per_class_file is not None and self.statistics is not None:
            self._write_per_class_file(self.per_class_file, self.statistics)
        return metrics

    def _read_ground_truth(self, ann_file: str) -> None:
        """Read the validation set's annotations and choose the rules."""
        iou_types = [] if self.format_only else self.metrics
        dataset = read_ground_truth(ann_file, iou_types, self.backend_args)
        self._rules = self.annotation_format or find_annotation_format(dataset)
        if self._rules == 'lvis':
            check_federated(dataset, ann_file)
            import_lvis()
        self._ground_truth_file = ann_file
        self._coco_api = coco_in_memory(dataset)

    def _check_classes(self) -> None:
        """Find the category of each label, and statistics of the same."""
        classes = (self.dataset_meta or {}).get('classes') or None
        source = self._ground_truth_file
        categories = label_categories(self._coco_api.dataset, source, classes)
        self.cat_ids = [category['id'] for category in categories]
        if self.format_only or not is_main_process():
            return
        statistics = self.statistics or self._read_statistics()
        self.statistics = statistics
        names = [category['name'] for category in categories]
        counted = statistics.class_names
        if len(counted) != len(names):
            raise LongTailError(
                f'{source}: has {len(names)} classes, but the training '
                f'statistics ({statistics.source}) have {len(counted)}; '
                'both must be of the same classes'
            )
        for label, name in enumerate(names):
            spellings = {name, classes[label]} if classes else {name}
            if counted[label] not in spellings:
                raise LongTailError(
                    f'{source}: label {label} is {name!r}, but the training '
                    f'statistics ({statistics.source}) call it '
                    f'{counted[label]!r}; both must have the same classes in '
                    'the same order'
                )
        self.groups = (
            frequency_groups(statistics)
            if self.bin_edges is None
            else bin_groups(statistics, self.bin_by, self.bin_edges)
        )

    def _read_statistics(self) -> ClassStatistics:
        if self.class_statistics is not None:
            return ClassStatistics.load(self.class_statistics)
        if self.train_ann_file is not None:
            return ClassStatistics.from_annotation_file(self.train_ann_file)
        raise LongTailError(
            'FrequencyGroupMetric: no training statistics to group classes '
            "by; add class_statistics=dict(type='ClassStatisticsHook') to "
            'default_hooks, or give the metric class_statistics=<JSON of '
            'tools/class_statistics.py> or train_ann_file=<annotation file>'
        )

    def _check_results(self, results: Sequence[tuple[dict, dict]]) -> None:
        """Check that detections are of this validation set."""
        for _, prediction in results:
            image = prediction['img_id']
            labels = prediction['labels']
            if image not in self._coco_api.imgs:
                raise LongTailError(
                    f'{self._ground_truth_file}: has no image {image!r}, but '
                    "there are detections for it; the metric's ann_file must "
                    "be the data set's"
                )
            if len(labels) and labels.max() >= len(self.cat_ids):
                raise LongTailError(
                    f'{self._ground_truth_file}: has {len(self.cat_ids)} '
                    f'classes, but a detection in image {image!r} has the '
                    f'label {labels.max()}; set num_classes of the heads to '
                    f'{len(self.cat_ids)}'
                )
            if 'segm' in self.metrics and 'masks' not in prediction:
                raise LongTailError(
                    "FrequencyGroupMetric: metric has 'segm', but the "
                    "detections have no masks; use metric='bbox'"
                )

    def _evaluate(
        self, iou_type: str, detections: list[dict]
    ) -> dict[str, float]:
        """Evaluate one IoU type, and log the table."""
        logger = MMLogger.get_current_instance()
        logger.info(f'Evaluating {iou_type} by the rules of {self._rules}...')
        if iou_type == 'segm':
            # Both evaluators take the area of a box, where there is one, for
            # the area of the mask.
            for detection in detections:
                del detection['bbox']
        precision = RULES[self._rules](
            self._coco_api,
            detections,
            self.cat_ids,
            iou_type,
            self.max_detections or MAX_DETECTIONS[self._rules],
        )  # (T, R, C, A)
        behind = average_precisions(precision)  # name of a mean -> (C,)
        class_ap = behind['AP']
        self.per_class_ap[iou_type] = class_ap
        for group in self.groups:
            behind[group.key] = class_ap[group.members]
        logger.info(f'\n{_table(iou_type, behind)}')
        metrics: dict[str, float] = {}
        for name, values in behind.items():
            metrics[name] = mean_average_precision(values)
        for name, values in behind.items():
            metrics[f'{name}_classes'] = int(np.isfinite(values).sum())
        metrics['classes_without_instances'] = int(np.isnan(class_ap).sum())
        return {f'{iou_type}_{name}': metrics[name] for name in metrics}

    def _write_per_class_file(
        self, path: str, statistics: ClassStatistics
    ) -> None:
        """Write the classes and their AP as CSV."""
        group_names = np.empty(len(statistics.class_names), dtype=object)
        for group in self.groups:
            group_names[group.members] = group.name
        columns: dict[str, Iterable] = {
            'name': statistics.class_names,
            'image_count': statistics.image_count,
            'instance_count': statistics.instance_count,
            'group': group_names,
        }
        for iou_type, class_ap in self.per_class_ap.items():
            columns[f'{iou_type}_AP'] = [
                '' if np.isnan(ap) else ap for ap in class_ap.tolist()
            ]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator='\n')
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_whole(path, text.getvalue().encode())


def _table(title: str, behind: dict[str, np.ndarray]) -> str:
    table = Table(title=title, box=box.SIMPLE)
    table.add_column('mean')
    for heading in ('value', 'classes', 'without instances'):
        table.add_column(heading, justify='right')
    for name, values in behind.items():
        table.add_row(
            name,
            f'{mean_average_precision(values):.4f}',
            str(np.isfinite(values).sum()),
            str(np.isnan(values).sum()),
        )
    text = io.StringIO()
    Console(file=text, width=79).print(table)
    return text.getvalue()


def _check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise LongTailError(
            f'FrequencyGroupMetric: {key} is {value!r}, expected '
            f'{" or ".join(map(repr, choices))}'
        )
