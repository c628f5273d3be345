"""Train and test the classifier of a frozen detector from cached RoIs.

Shapes: B images of a batch, T stages of the RoI head, N RoIs of the batch, n
of an image, F inputs of ``fc_cls``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead
from mmdet.models.roi_heads.bbox_heads import bbox_head
from mmdet.structures import DetDataSample
from torch import Tensor

from mmdet_longtail.models.layers.multiclass_nms import multiclass_nms_of_best
from mmdet_longtail.models.roi_heads.long_tail_roi_head import (
    LongTailRoIHeadMixin,
)
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.utils.replacing import replaced


@contextmanager
def reading_cached_rois(model: Any) -> Iterator[None]:
    """Let a detector also take the batches of cached RoIs.

    Batches of images are treated as before.

    Args:
        model (nn.Module): The detector, not wrapped.
    """
    reader = partial(_preprocess, model.data_preprocessor)
    heads = list(classifier_heads(model).values())
    with (
        replaced(model, forward=partial(_forward, model, heads)),
        replaced(model.data_preprocessor, forward=reader),
    ):
        yield


def _preprocess(
    preprocessor: Any, data: dict[str, Any], training: bool = False
) -> Any:
    if 'features' in data:
        # The samples have no tensors, and to copy them takes long.
        samples = {'data_samples': data['data_samples']}
        tensors = {k: v for k, v in data.items() if k not in samples}
        return preprocessor.cast_data(tensors) | samples
    return type(preprocessor).forward(preprocessor, data, training)


def _forward(
    model: Any, heads: Sequence[Any], *args: Any, mode: str, **data: Any
) -> Any:
    if 'features' not in data:
        return type(model).forward(model, *args, **data, mode=mode)
    return (_loss if mode == 'loss' else _predict)(model, heads, **data)


def _loss(
    model: Any,
    heads: Sequence[Any],
    features: Sequence[Sequence[Tensor]],
    labels: Sequence[Sequence[Tensor]],
    label_weights: Sequence[Sequence[Tensor]],
    data_samples: list[DetDataSample],
) -> dict[str, Tensor]:
    """Compute the classification losses of tensors [T][B], as mmdet does."""
    roi_head = model.roi_head
    is_cascade = isinstance(roi_head, CascadeRoIHead)
    losses: dict[str, Tensor] = {}
    context: Any = nullcontext()
    if isinstance(roi_head, LongTailRoIHeadMixin):
        context = roi_head.verifying(data_samples, features[0][0].device)
    with context:
        for stage, head in enumerate(heads):
            x = torch.cat(list(features[stage])).float()  # (N, F)
            of_head = head.loss(
                head.fc_cls(x),
                None,
                _image_indices(features[stage]),
                torch.cat(list(labels[stage])).long(),
                torch.cat(list(label_weights[stage])),
                None,
                None,
            )
            for name, value in of_head.items():
                if is_cascade and 'loss' in name:
                    value = value * roi_head.stage_loss_weights[stage]
                losses[f's{stage}.{name}' if is_cascade else name] = value
    return losses


def _image_indices(images: Sequence[Tensor]) -> Tensor:
    """Return RoIs (N, 5) that have the index of their image, and no box."""
    rois = [x.new_full((len(x), 1), i) for i, x in enumerate(images)]
    return torch.cat(rois).float() * torch.eye(1, 5, device=rois[0].device)


def _predict(
    model: Any,
    heads: Sequence[Any],
    features: Sequence[Sequence[Tensor]],
    boxes: Sequence[Tensor],
    data_samples: list[DetDataSample],
    box_features: Sequence[Tensor] | None = None,
) -> list[DetDataSample]:
    """Predict from proposals: features [T][B], boxes [B], as mmdet does."""
    sizes = [len(each) for each in boxes]
    scores = [
        head.fc_cls(torch.cat(list(x)).float()).split(sizes)
        for head, x in zip(heads, features, strict=True)
    ]
    last, bbox_preds = heads[-1], [None] * len(boxes)
    if last.with_reg:
        x = torch.cat(list(box_features or features[-1])).float()
        bbox_preds = last.fc_reg(x).split(sizes)
    # NMS takes most of the time. The fast NMS gives the same detections.
    with replaced(bbox_head, multiclass_nms=multiclass_nms_of_best):
        results = last.predict_by_feat(
            rois=[torch.cat([b.new_zeros(len(b), 1), b], 1) for b in boxes],
            cls_scores=[sum(own) / float(len(own)) for own in zip(*scores)],
            bbox_preds=bbox_preds,
            batch_img_metas=[sample.metainfo for sample in data_samples],
            rcnn_test_cfg=model.roi_head.test_cfg,
            rescale=True,
        )
    return model.add_pred_to_datasample(data_samples, results)
