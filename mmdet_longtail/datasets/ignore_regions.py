"""Datasets with regions to ignore, from a second annotation file.

A dataset without exhaustive annotations has objects that training takes for
background. Another file of the same images may have their boxes: COCO's for
LVIS, as in Appendix A of Tan et al., Equalization Loss for Long-Tailed Object
Recognition, CVPR 2020.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.fileio import get_local_path

from mmdet_longtail.datasets.lvis import (
    AnnotationFileDataset,
    FederatedLVISV05Dataset,
    FederatedLVISV1Dataset,
)
from mmdet_longtail.errors import check
from mmdet_longtail.structures.annotations import (
    image_file_name,
    parse_annotations,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.fileio import read_json


class IgnoreRegionsMixin:
    """Adds the boxes of a second file that the dataset does not annotate.

    A box is added if its IoU with every annotation of the image, of any
    class, is below ``ignore_iou``. It has ignore_flag 1, label -1 and no
    mask, so mmdet packs it into ``ignored_instances``. There,
    ``BackgroundIgnoringAssigner`` keeps proposals inside the box from being
    background. Images are matched by the last part of their file names. Class
    statistics and samplers do not count these boxes.

    Args:
        ignore_file (str, optional): COCO or LVIS annotations with boxes, a
            path relative to ``data_root``. Defaults to None, nothing to
            ignore.
        ignore_iou (float): In (0, 1]. The paper gives no value. Defaults to
            0.5.

    Raises:
        LongTailError: If ``ignore_iou`` is out of range; when data is loaded,
            if the file is missing or broken, has two images of one name, or
            has none of the images.
    """

    data_root: str
    backend_args: dict | None
    ann_file: str

    def __init__(
        self,
        *args: Any,
        ignore_file: str | None = None,
        ignore_iou: float = 0.5,
        **kwargs: Any,
    ) -> None:
        check_numbers(type(self).__name__, '(0, 1]', ignore_iou=ignore_iou)
        self.ignore_file = ignore_file
        self.ignore_iou = ignore_iou
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        data_list = super().load_data_list()  # type: ignore[misc]
        if self.ignore_file is None:
            return data_list
        source = str(Path(self.data_root or '', self.ignore_file))
        boxes_of = _read_boxes(source, self.backend_args)
        names = [Path(info['img_path']).name for info in data_list]
        check(
            {*names} & boxes_of.keys(),
            f'{source}: has none of the images of {self.ann_file}, such as '
            f'{names[0] if names else None!r}; ignore_file must annotate the '
            'same images',
        )
        for info, name in zip(data_list, names):
            info['instances'] += _ignored_instances(
                boxes_of.get(name, []), info['instances'], self.ignore_iou
            )
        return data_list

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the labels of an image, without ignored boxes."""
        instances = self.get_data_info(idx)['instances']  # type: ignore
        return [i['bbox_label'] for i in instances if not i['ignore_flag']]


def _read_boxes(
    source: str, backend_args: dict | None
) -> dict[str, list[list[float]]]:
    """Read the boxes [x1, y1, x2, y2] per image, by file name."""
    with get_local_path(source, backend_args=backend_args) as local_path:
        content = read_json(local_path)
    parse_annotations(content, source)
    names = {i['id']: Path(image_file_name(i)).name for i in content['images']}
    twice, times = Counter(names.values()).most_common(1)[0]
    check(
        times == 1,
        f'{source}: {times} images are named {twice!r}, but ignore_file is '
        'matched by name; expected each name once',
    )
    boxes_of: dict[str, list[list[float]]] = {n: [] for n in names.values()}
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        if width >= 1 and height >= 1:
            box = [x, y, x + width, y + height]
            boxes_of[names[annotation['image_id']]].append(box)
    return boxes_of


def _ignored_instances(
    boxes: list[list[float]], instances: list[dict], ignore_iou: float
) -> list[dict]:
    """Build ignored instances of the boxes that no instance covers."""
    candidates = torch.tensor(boxes).reshape(-1, 4)
    annotated = torch.tensor([i['bbox'] for i in instances]).reshape(-1, 4)
    iou = bbox_overlaps(candidates, annotated)  # (boxes, instances)
    covered = (iou >= ignore_iou).any(1).tolist()
    return [
        dict(bbox=box, bbox_label=-1, ignore_flag=1, mask=[])
        for box, is_covered in zip(boxes, covered)
        if not is_covered
    ]


@DATASETS.register_module()
class IgnoreRegionsLVISV05Dataset(IgnoreRegionsMixin, FederatedLVISV05Dataset):
    """LVIS v0.5 with image-level labels and regions to ignore."""


@DATASETS.register_module()
class IgnoreRegionsLVISV1Dataset(IgnoreRegionsMixin, FederatedLVISV1Dataset):
    """LVIS v1 with image-level labels and regions to ignore."""


@DATASETS.register_module()
class IgnoreRegionsAnnotationFileDataset(
    IgnoreRegionsMixin, AnnotationFileDataset
):
    """A COCO or LVIS file with regions to ignore."""
