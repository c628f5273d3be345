"""lvis' evaluation on data that is in memory. Needs lvis."""

import logging

from lvis import LVIS, LVISEval, LVISResults

# It warns at every evaluation that results came as a list, not as a file.
logging.getLogger('lvis.results').setLevel(logging.ERROR)


class LVISInMemory(LVIS):
    """LVIS's index over a dataset that is read already."""

    def _load_json(self, dataset: dict) -> dict:
        return dataset


class LVISDetections(LVISResults):
    """LVIS's index over detections, of which there may be none."""

    def __init__(
        self, dataset: dict, detections: list[dict], max_detections: int
    ) -> None:
        # LVISResults copies all that it is given, down to the polygons.
        unannotated = LVISInMemory(dict(dataset, annotations=[]))
        if detections:
            super().__init__(unannotated, detections, max_detections)
        else:
            self.__dict__.update(vars(unannotated))


class LVISEvaluation(LVISEval):
    """LVISEval without its groups, which only LVIS's own files name."""

    def _prepare_freq_group(self) -> list:
        return []
