"""Datasets of any COCO or LVIS file, image-level labels, regions to ignore.

In a federated dataset (LVIS) an image is annotated for some classes only.
Its entry in the file lists them: annotated classes are present,
``neg_category_ids`` are absent, and all others are unknown.

Objects without annotation are background in training. Another file of the
same images may have their boxes: COCO's for LVIS, as in Appendix A of Tan et
al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmdet.datasets import CocoDataset, LVISV05Dataset, LVISV1Dataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.fileio import get_local_path

from mmdet_longtail.datasets.transforms import LoadOptionalMasks
from mmdet_longtail.errors import check
from mmdet_longtail.structures.annotation_faults import check_annotations
from mmdet_longtail.structures.annotations import (
    FEDERATED_KEYS,
    IMAGE_LEVEL_KEYS,
    image_file_name,
    parse_annotations,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.fileio import read_json


class _Ids(list):
    """List ids with a search in constant time: mmdet does one per box."""

    def __init__(self, ids: Iterable[int]) -> None:
        super().__init__(ids)
        self._known = {*self}

    def __contains__(self, id: object) -> bool:
        return id in self._known


class _InMemoryCOCO(COCO):
    """mmdet's index of the content of an annotation file."""

    def __init__(self, content: dict) -> None:
        super().__init__()
        self.dataset = content
        self.createIndex()
        self.img_ann_map = self.imgToAnns
        self.cat_img_map = self.catToImgs

    def get_cat_ids(self, cat_names: Iterable[str] = ()) -> _Ids:
        """Return the ids of the named categories, of all without a name."""
        return _Ids(super().get_cat_ids({*cat_names}))


@DATASETS.register_module()
class AnnotationFileDataset(CocoDataset):
    """COCO or LVIS annotations whose categories name the classes.

    Labels follow the order of ``categories`` in the file. Classes in
    ``metainfo`` select categories by name.

    Raises:
        LongTailError: When data is loaded, if the file is not JSON, if a
            field that mmdet reads is missing or wrong, or if ``filter_cfg``
            leaves no image.
    """

    METAINFO: dict = dict(classes=(), palette=None)

    def load_data_list(self) -> list[dict]:
        backend = self.backend_args
        with get_local_path(self.ann_file, backend_args=backend) as path:
            content = read_json(path)
        loaders = [
            transform
            for transform in self.pipeline.transforms
            if isinstance(transform, LoadAnnotations) and transform.with_mask
        ]
        check_annotations(
            content,
            self.ann_file,
            needs_boxes=False,
            needs_masks=bool(loaders),
            optional_masks=any(
                isinstance(loader, LoadOptionalMasks) for loader in loaders
            ),
        )
        if not self._metainfo['classes']:
            names = (category['name'] for category in content['categories'])
            self._metainfo['classes'] = tuple(names)
        self.COCOAPI = lambda _: _InMemoryCOCO(content)
        try:
            return super().load_data_list()
        finally:
            del self.COCOAPI  # workers need the dataset pickled

    def filter_data(self) -> list[dict]:
        kept = super().filter_data()
        check(
            kept or not self.data_list,
            f'{self.ann_file}: none of its {len(self.data_list):,} images is '
            f'left by filter_cfg={dict(self.filter_cfg or {})}: they are '
            'smaller than min_size, or have no annotation of the classes; '
            'correct the file or filter_cfg',
        )
        return kept

    def parse_data_info(self, raw_data_info: dict) -> dict:
        image = raw_data_info['raw_img_info']
        image['file_name'] = image_file_name(image)
        return super().parse_data_info(raw_data_info)


class FederatedMixin:
    """Adds image-level labels to a dataset of COCO's family.

    ``get_data_info`` and the metainfo of each packed image have two further
    keys, lists of labels in rising order:

    - ``present_labels``: classes with an annotation in the file (a crowd, a
      tiny box and a box of zero size included) or listed in
      ``not_exhaustive_category_ids``. Filters and crops do not change them.
    - ``absent_labels``: the classes of ``neg_category_ids``.

    A wrapper that merges images (``MultiImageMixDataset``) packs no image
    itself, so a merged image has neither key.

    Raises:
        LongTailError: If an image of the file has no ``neg_category_ids``.
    """

    ann_file: str
    cat2label: dict[int, int]

    def parse_data_info(self, raw_data_info: dict) -> dict:
        image = raw_data_info['raw_img_info']
        absent_key, not_exhaustive_key = FEDERATED_KEYS
        check(
            isinstance(image.get(absent_key), list),
            f'{self.ann_file}: image {image["img_id"]} has no list '
            f"'{absent_key}', which image-level labels need: add it, empty if "
            'no class is known to be absent, or use another dataset than '
            f'{type(self).__name__}',
        )
        present = {a['category_id'] for a in raw_data_info['raw_ann_info']}
        present.update(image.get(not_exhaustive_key, ()))
        absent = set(image[absent_key])
        data_info = super().parse_data_info(raw_data_info)  # type: ignore
        for key, categories in zip(IMAGE_LEVEL_KEYS, (present, absent)):
            data_info[key] = sorted(
                self.cat2label[category]
                for category in categories & self.cat2label.keys()
            )
        return data_info

    def prepare_data(self, idx: int) -> Any:
        data_info = self.get_data_info(idx)  # type: ignore[attr-defined]
        labels = {key: data_info[key] for key in IMAGE_LEVEL_KEYS}
        results = self.pipeline(data_info)  # type: ignore[attr-defined]
        sample = results and results.get('data_samples')
        if isinstance(sample, DetDataSample):
            sample.set_metainfo(labels)
        return results


@DATASETS.register_module()
class FederatedLVISV05Dataset(FederatedMixin, LVISV05Dataset):
    """LVIS v0.5 with image-level labels."""


@DATASETS.register_module()
class FederatedLVISV1Dataset(FederatedMixin, LVISV1Dataset):
    """LVIS v1 with image-level labels."""


@DATASETS.register_module()
class FederatedAnnotationFileDataset(FederatedMixin, AnnotationFileDataset):
    """Any file in LVIS format, with image-level labels."""


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
