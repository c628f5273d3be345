"""Predict a batch under several classifiers by one pass of the detector.

Shapes: N RoIs, D columns of ``fc_cls``, F features.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mmdet.structures import DetDataSample
from torch import Tensor, nn

from mmdet_longtail.models.utils.bbox_heads import classifier_heads


@contextmanager
def without_masks(model: Any) -> Iterator[None]:
    """Switch the mask head of a detector off in the calls within."""
    modules = model.roi_head._modules
    mask_head = modules.pop('mask_head', None)
    try:
        yield
    finally:
        if mask_head is not None:
            modules['mask_head'] = mask_head


def predict_each(
    model: Any,
    data: dict[str, Any],
    values: Sequence[float],
    change: Callable[[float], None],
) -> Iterator[list[DetDataSample]]:
    """Yield the boxes of a batch under each value of a classifier.

    The detector runs once. Under each value only ``fc_cls``, the activation
    and NMS run again, on the features that ``fc_cls`` received. In a cascade
    whose boxes depend on the class, the boxes between the stages are those of
    the classifier as it was.

    Args:
        model (nn.Module): Detector in eval mode, without gradients.
        data (dict): Batch of a data loader.
        values (Sequence[float]): Values.
        change (Callable): Function that sets a value in the model's
            ``fc_cls`` and ``loss_cls``.
    """
    heads = [*classifier_heads(model).values()]
    last = heads[-1]
    predict = last.predict_by_feat
    features: list[Tensor] = []  # (N, F) per stage
    calls: list[dict[str, Any]] = []

    def keep(layer: nn.Module, args: tuple[Tensor]) -> None:
        features.append(args[0])

    def record(**arguments: Any) -> Any:
        calls.append(arguments)
        return predict(**arguments)

    handles = [head.fc_cls.register_forward_pre_hook(keep) for head in heads]
    last.predict_by_feat = record
    try:
        with without_masks(model):
            samples = model.test_step(data)
    finally:
        del last.predict_by_feat
        for handle in handles:
            handle.remove()
    for value in values:
        change(value)
        for arguments in calls:  # none for a batch without proposals
            # As mmdet's cascades do, with the scores of their stages.
            stages = [head.fc_cls(x) for head, x in zip(heads, features)]
            cls_score: Any = sum(stages) / len(stages)  # (N, D)
            sizes = [len(rois) for rois in arguments['rois']]
            results = predict(
                **arguments | {'cls_scores': cls_score.split(sizes)}
            )
            for sample, result in zip(samples, results, strict=True):
                sample.pred_instances = result
        yield samples
