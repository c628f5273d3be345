"""Evaluation of detections on numpy arrays, without torch and mmdet."""

from mmdet_longtail.evaluation.functional.average_precision import (
    Evaluation,
    evaluate,
    mean,
    proposal_recall,
    write_per_class_file,
)
from mmdet_longtail.evaluation.functional.bootstrap import (
    Difference,
    Interval,
    bootstrap_means,
    differences,
    intervals,
    leaders,
)
from mmdet_longtail.evaluation.functional.detections import (
    UNLIMITED,
    Detections,
    EvaluationSpec,
)
from mmdet_longtail.evaluation.functional.ground_truth import (
    GroundTruth,
    prepare_ground_truth,
    read_ground_truth,
)
from mmdet_longtail.evaluation.functional.mask_encoding import encode_masks
from mmdet_longtail.evaluation.functional.matching import (
    BACKGROUND,
    IGNORED,
    Matches,
    is_classification_error,
    match_detections,
    predicted_labels,
)

__all__ = [
    'BACKGROUND',
    'IGNORED',
    'UNLIMITED',
    'Detections',
    'Difference',
    'Evaluation',
    'EvaluationSpec',
    'GroundTruth',
    'Interval',
    'Matches',
    'bootstrap_means',
    'differences',
    'encode_masks',
    'evaluate',
    'intervals',
    'is_classification_error',
    'leaders',
    'match_detections',
    'mean',
    'predicted_labels',
    'prepare_ground_truth',
    'proposal_recall',
    'read_ground_truth',
    'write_per_class_file',
]
