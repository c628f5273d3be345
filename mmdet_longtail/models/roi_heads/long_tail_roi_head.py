"""mmdet's RoI heads with the image-level labels of federated datasets.

Shapes: B images, N RoIs, C classes (foreground only).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    HybridTaskCascadeRoIHead,
    StandardRoIHead,
)
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.roi_heads.bbox_heads import LongTailBBoxHeadMixin
from mmdet_longtail.structures.annotations import IMAGE_LEVEL_KEYS


def find_verified_classes(
    data_samples: Sequence[DetDataSample], num_classes: int
) -> Tensor:
    """Return the classes that each image was checked for.

    They are the classes of its positive and of its negative set (Tan et al.,
    Equalization Loss for Long-Tailed Object Recognition, CVPR 2020, section
    4.2), that is its ``present_labels`` and ``absent_labels``.

    Returns:
        Tensor: (B, C) bool, on the CPU.

    Raises:
        LongTailError: If an image lacks these labels, or has an object of a
            class that is not in its positive set.
    """
    verified = torch.zeros(len(data_samples), num_classes, dtype=torch.bool)
    for row, sample in zip(verified, data_samples, strict=True):
        image = f'image {sample.get("img_id", "without img_id")}'
        for key in IMAGE_LEVEL_KEYS:
            if key not in sample.metainfo_keys():
                raise LongTailError(
                    f"{image} has no '{key}' in its metainfo: train on "
                    'FederatedLVISV05Dataset, FederatedLVISV1Dataset or '
                    'FederatedAnnotationFileDataset, whose own pipeline ends '
                    "in PackDetInputs; a wrapper's PackDetInputs has to name "
                    'both keys in meta_keys, and must not merge images'
                )
        present, absent = sample.present_labels, sample.absent_labels
        foreign = set(sample.gt_instances.labels.tolist()) - set(present)
        if foreign:
            raise LongTailError(
                f'{image} has an object with label {min(foreign)}, which is '
                'not in its present_labels: image-level labels are those of '
                'one image of the file, so remove transforms that merge '
                'images (Mosaic, MixUp, CopyPaste) from the pipeline'
            )
        row[torch.tensor([*present, *absent], dtype=torch.int64)] = True
    return verified


class LongTailRoIHeadMixin:
    """Mixin that brings image-level labels to losses that use them.

    The bbox heads receive the classes that each image was checked for, and
    give them to a loss with ``uses_verified_classes``, row by row. With other
    losses nothing changes.

    Raises:
        LongTailError: If a loss uses these labels, and its bbox head is not
            one of this package or an image lacks them.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for head in self._verifying_heads():
            if not isinstance(head, LongTailBBoxHeadMixin):
                name = type(head).__name__
                raise LongTailError(
                    f'{type(self).__name__}: bbox_head is {name}, which '
                    'cannot give image-level labels to '
                    f'{type(head.loss_cls).__name__}: take the head of this '
                    f"package, type='LongTail{name}' if there is one, or "
                    "mmdet's own RoI head to train without these labels"
                )

    def _verifying_heads(self: Any) -> list[Any]:
        """Return the bbox heads whose loss uses verified classes."""
        heads = [head for head in self.modules() if hasattr(head, 'loss_cls')]
        key = 'uses_verified_classes'
        return [head for head in heads if getattr(head.loss_cls, key, False)]

    @contextmanager
    def verifying(
        self, data_samples: Sequence[DetDataSample], device: Any
    ) -> Iterator[None]:
        """Give the labels of images to the bbox heads in the calls within."""
        with ExitStack() as stack:
            if heads := self._verifying_heads():
                num_classes = heads[0].num_classes
                verified = find_verified_classes(data_samples, num_classes)
                for head in heads:
                    stack.enter_context(head.verifying(verified.to(device)))
            yield

    def loss(
        self,
        x: tuple[Tensor, ...],
        rpn_results_list: list[InstanceData],
        batch_data_samples: list[DetDataSample],
    ) -> dict[str, Tensor]:
        with self.verifying(batch_data_samples, x[0].device):
            return super().loss(  # type: ignore[misc]
                x, rpn_results_list, batch_data_samples
            )


@MODELS.register_module()
class LongTailStandardRoIHead(LongTailRoIHeadMixin, StandardRoIHead):
    """mmdet's ``StandardRoIHead`` with image-level labels."""


@MODELS.register_module()
class LongTailCascadeRoIHead(LongTailRoIHeadMixin, CascadeRoIHead):
    """mmdet's ``CascadeRoIHead`` with image-level labels."""


@MODELS.register_module()
class LongTailHybridTaskCascadeRoIHead(
    LongTailRoIHeadMixin, HybridTaskCascadeRoIHead
):
    """mmdet's ``HybridTaskCascadeRoIHead`` with image-level labels."""
