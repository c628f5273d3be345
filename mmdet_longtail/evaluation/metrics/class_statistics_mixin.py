"""How a metric comes by the counts of the training set."""

from __future__ import annotations

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.class_statistics import ClassStatistics


class CountedMetricMixin:
    """A metric that groups classes by how often they are trained.

    ClassStatisticsHook gives it the counts; without the hook they come from
    the file that ``class_statistics`` names.
    """

    statistics_keys = 'class_statistics=<JSON of tools/class_statistics.py>'
    class_statistics: str | None = None
    statistics: ClassStatistics | None = None

    def set_class_statistics(self, statistics: ClassStatistics) -> None:
        """Take the counts that decide the groups.

        Args:
            statistics (ClassStatistics): Counts of the training set.
        """
        self.statistics = statistics

    def training_statistics(self) -> ClassStatistics:
        """Give the counts, and remember what was read.

        Raises:
            LongTailError: If there are none.
        """
        if self.statistics is None:
            self.statistics = self.read_statistics()
        return self.statistics

    def read_statistics(self) -> ClassStatistics:
        """Read the counts where no hook has given them.

        Raises:
            LongTailError: If no file is named.
        """
        if self.class_statistics is not None:
            return ClassStatistics.load(self.class_statistics)
        raise LongTailError(
            f'{type(self).__name__}: no training statistics to group classes '
            'by; add ClassStatisticsHook to default_hooks, or give the '
            f'metric {self.statistics_keys}'
        )
