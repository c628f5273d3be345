"""Datasets of any COCO or LVIS file, and with image-level labels.

In a federated dataset (LVIS) an image is annotated for some classes only.
Its entry in the file lists them: annotated classes are present,
``neg_category_ids`` are absent, and all others are unknown.
"""

from typing import Any

from mmdet.datasets import CocoDataset, LVISV05Dataset, LVISV1Dataset
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.fileio import load

from mmdet_longtail.errors import check
from mmdet_longtail.structures.annotations import (
    FEDERATED_KEYS,
    IMAGE_LEVEL_KEYS,
    image_file_name,
)


@DATASETS.register_module()
class AnnotationFileDataset(CocoDataset):
    """COCO or LVIS annotations whose categories name the classes.

    Labels follow the order of ``categories`` in the file. Classes in
    ``metainfo`` select categories by name.
    """

    METAINFO: dict = dict(classes=(), palette=None)

    def load_data_list(self) -> list[dict]:
        if not self._metainfo['classes']:
            content = load(self.ann_file, backend_args=self.backend_args)
            self._metainfo['classes'] = tuple(
                category['name'] for category in content['categories']
            )
        return super().load_data_list()

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
        data_info = super().parse_data_info(  # type: ignore[misc]
            raw_data_info
        )
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
