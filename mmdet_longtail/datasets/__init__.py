"""Datasets, samplers and transforms that a config names in dataloaders."""

from mmdet_longtail.compat import prepare

prepare()

from mmdet_longtail.datasets import samplers
from mmdet_longtail.datasets.lvis import (
    AnnotationFileDataset,
    FederatedAnnotationFileDataset,
    FederatedLVISV05Dataset,
    FederatedLVISV1Dataset,
    FederatedMixin,
    IgnoreRegionsAnnotationFileDataset,
    IgnoreRegionsLVISV05Dataset,
    IgnoreRegionsLVISV1Dataset,
    IgnoreRegionsMixin,
)
from mmdet_longtail.datasets.seeded import SeededBatchSampler, SeededDataset
from mmdet_longtail.datasets.transforms import LoadOptionalMasks
