"""Class statistics of the training set, for metrics."""

from mmengine.dist import broadcast_object_list, is_main_process

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.class_statistics import ClassStatistics


class ClassStatisticsMixin:
    """Mixin: class statistics of the training set.

    They come from ClassStatisticsHook. Without the hook they are read from
    ``class_statistics``, else counted in ``train_ann_file``.
    """

    class_statistics: str | None = None
    train_ann_file: str | None = None
    statistics: ClassStatistics | None = None
    statistics_keys = 'class_statistics=<JSON of tools/class_statistics.py>'

    def set_class_statistics(self, statistics: ClassStatistics) -> None:
        """Set the class statistics of the training set."""
        self.statistics = statistics

    def evaluate(self, size: int) -> dict[str, float]:
        """Evaluate on rank 0, and raise its errors on all ranks."""
        try:
            metrics = super().evaluate(size)  # type: ignore[misc]
        except LongTailError as error:
            # In the place of the metrics that the other ranks wait for.
            if is_main_process():
                broadcast_object_list([error])
            raise
        if isinstance(metrics, LongTailError):
            raise metrics
        return metrics

    def training_statistics(self) -> ClassStatistics:
        """Return the class statistics, read at the first call if necessary.

        Raises:
            LongTailError: There are none, or their file is broken.
        """
        if self.statistics is not None:
            return self.statistics
        if self.class_statistics is not None:
            self.statistics = ClassStatistics.load(self.class_statistics)
            return self.statistics
        check(
            self.train_ann_file,
            f'{type(self).__name__}: no training statistics to group classes '
            'by. A checkpoint contains them if ClassStatisticsHook was in '
            'default_hooks of its training; for any other, give the metric '
            f'{self.statistics_keys}, in the config or by --cfg-options',
        )
        path = str(self.train_ann_file)
        self.statistics = ClassStatistics.from_annotation_file(path)
        return self.statistics
