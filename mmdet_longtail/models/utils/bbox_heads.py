"""Find the bbox heads of a detector, in its modules and in its config."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the detector in wrappers for DDP and test-time augmentation."""
    inner: Any = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    return inner


def classifier_heads(model: nn.Module) -> dict[str, Any]:
    """Return the bbox heads with ``fc_cls`` and ``loss_cls``, by name.

    Raises:
        LongTailError: If the detector, not wrapped, has none.
    """
    heads = {
        name: module
        for name, module in model.named_modules()
        if name.startswith('roi_head.')
        and isinstance(getattr(module, 'loss_cls', None), nn.Module)
        and hasattr(module, 'fc_cls')
    }
    if not heads:
        raise LongTailError(
            f'model.roi_head: {type(model).__name__} has no RoI head with a '
            'classifier (fc_cls and loss_cls); use a two-stage detector such '
            'as FasterRCNN'
        )
    return heads


def bbox_head_configs(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configs of a detector's bbox heads, by module name.

    The name is 'roi_head.bbox_head' or, in a cascade, 'roi_head.bbox_head.0'
    and so on, also for mmdet 1.x, where ``bbox_head`` is beside ``rpn_head``.
    A one-stage detector has none.
    """
    owner = model.get('roi_head', model)
    heads = owner.get('bbox_head')
    if heads is None or not model.keys() & {'roi_head', 'rpn_head'}:
        return {}
    if isinstance(heads, Mapping) and 'num_stages' in owner:
        heads = [heads] * owner['num_stages']
    if isinstance(heads, Mapping):
        return {'roi_head.bbox_head': heads}
    return {f'roi_head.bbox_head.{i}': head for i, head in enumerate(heads)}


def is_softmax(head: Any) -> bool:
    """Check that a bbox head predicts by a softmax, background last."""
    loss, num_columns = head.loss_cls, len(head.fc_cls.weight)
    has_own = getattr(loss, 'custom_activation', False)
    return num_columns == head.num_classes + 1 and getattr(
        loss, 'is_softmax', not has_own
    )


def predicted_probs(head: Any, cls_score: Tensor) -> Tensor:
    """Compute probabilities of scores (N, D) as mmdet does, class c in c."""
    if getattr(head.loss_cls, 'custom_activation', False):
        return head.loss_cls.get_activation(cls_score)
    if cls_score.size(1) == head.num_classes:
        return cls_score.sigmoid()
    return cls_score.softmax(1)
