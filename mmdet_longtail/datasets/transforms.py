"""Loading of annotations: objects without a mask, boxes before resizing."""

from collections.abc import Sequence
from typing import Any

from mmcv.transforms import LoadAnnotations as MMCVLoad
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import TRANSFORMS

from mmdet_longtail.errors import check
from mmdet_longtail.structures.annotation_faults import mask_fault
from mmdet_longtail.utils.registry import is_type

# A polygon of one point, which covers no pixel.
NO_MASK = [[0.0] * 6]
NO_MASK_KINDS = ('missing', 'empty')


@TRANSFORMS.register_module()
class LoadOptionalMasks(LoadAnnotations):
    """mmdet's ``LoadAnnotations`` for objects with and without a mask.

    mmdet's own fails at an object without ``segmentation``, and ignores one
    with empty polygons, its box included. Here such an object keeps its box
    and gets an empty mask, which stays empty under resizing, flipping and
    cropping. ``OptionalMaskFCNMaskHead`` leaves it out of the mask loss.
    Transforms that compute boxes from masks (``CopyPaste``,
    ``recompute_bbox=True``) would lose the box.

    Raises:
        LongTailError: If a segmentation cannot be drawn, such as a polygon
            with NaN, for which pycocotools would take all memory.
    """

    def __init__(self, *args: Any, with_mask: bool = True, **kwargs: Any):
        super().__init__(*args, with_mask=with_mask, **kwargs)

    def transform(self, results: dict) -> dict:
        size = results.get('ori_shape') or (None, None)
        for instance in results.get('instances', []):
            mask = instance.get('mask')
            kind, text = mask_fault(mask, size)
            check(
                kind != 'broken',
                f'{results.get("img_path")}: a segmentation {text}; expected '
                'polygons or a run-length encoding of the size of the image',
            )
            instance['mask'] = NO_MASK if kind in NO_MASK_KINDS else mask
        return super().transform(results)


def load_boxes_before_resize(pipeline: Sequence[Any]) -> list[Any]:
    """Move a test pipeline's ``LoadAnnotations`` before its ``Resize``.

    mmdet's test pipelines load boxes last, in the scale of the file. Loaded
    here, boxes are resized with their image.

    Args:
        pipeline (Sequence): Configs of transforms, the first of which loads
            the image.
    """
    boxes = [t for t in pipeline if is_type(TRANSFORMS, t, MMCVLoad)]
    rest = [t for t in pipeline if t not in boxes]
    default = dict(type='LoadAnnotations', with_bbox=True)
    return [*rest[:1], *(boxes[:1] or [default]), *rest[1:]]
