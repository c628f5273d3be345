"""A dataset that takes its class names from its annotation file."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import load


@DATASETS.register_module()
class AnnotationFileDataset(CocoDataset):
    """COCO or LVIS annotations whose categories name the classes.

    Labels follow the order of ``categories`` in the file. ``metainfo`` may
    still name classes: then only these are used.
    """

    METAINFO: dict = dict(classes=(), palette=None)

    def load_data_list(self) -> list[dict]:
        if not self._metainfo['classes']:
            categories = load(self.ann_file, backend_args=self.backend_args)[
                'categories'
            ]
            self._metainfo['classes'] = tuple(
                category['name'] for category in categories
            )
        return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict:
        image = raw_data_info['raw_img_info']
        image['file_name'] = file_name(image)
        return super().parse_data_info(raw_data_info)


def file_name(image: Mapping[str, Any]) -> str:
    """Say where an image is, from the folder of all images.

    Args:
        image (Mapping[str, Any]): Its entry in a COCO or LVIS file. LVIS v1
            has no file name, only a URL.
    """
    url = image.get('coco_url', '')
    return image.get(
        'file_name', url.replace('http://images.cocodataset.org/', '')
    )


def with_boxes_of_the_image(pipeline: Sequence[Any]) -> list[Any]:
    """Let the pipeline of a test give boxes in the scale of its image.

    A test reads boxes as they are in the file, after it resized the image.

    Args:
        pipeline (Sequence): Configs of transforms, the first of which loads
            the image.
    """
    boxes = [t for t in pipeline if t['type'] == 'LoadAnnotations']
    rest = [t for t in pipeline if t['type'] != 'LoadAnnotations']
    default = dict(type='LoadAnnotations', with_bbox=True)
    return [*rest[:1], *(boxes[:1] or [default]), *rest[1:]]
