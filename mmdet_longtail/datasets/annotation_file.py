"""A dataset that takes its class names from its annotation file."""

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import load

from mmdet_longtail.structures.annotations import image_file_name


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
