"""Parts of COCO and LVIS annotation files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmdet_longtail.errors import LongTailError


def select_annotations(
    content: dict[str, Any], is_kept: Iterable[bool], source: str
) -> dict[str, Any]:
    """Keep some annotations, the images that have one, and all categories.

    Args:
        content (dict): An annotation file, parsed; not changed.
        is_kept (Iterable[bool]): One a annotation.
        source (str): Its path, for the message.

    Raises:
        LongTailError: If nothing is left.
    """
    annotations = [
        annotation
        for annotation, kept in zip(
            content['annotations'], is_kept, strict=True
        )
        if kept
    ]
    if not annotations:
        raise LongTailError(f'{source}: none of its annotations is kept')
    used = {annotation['image_id'] for annotation in annotations}
    images = [image for image in content['images'] if image['id'] in used]
    return content | {'images': images, 'annotations': annotations}
