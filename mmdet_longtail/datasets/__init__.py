from .annotation_file import AnnotationFileDataset
from .federated import (
    FederatedAnnotationFileDataset,
    FederatedLVISV05Dataset,
    FederatedLVISV1Dataset,
    FederatedMixin,
)
from .ignore_regions import (
    IgnoreRegionsAnnotationFileDataset,
    IgnoreRegionsLVISV05Dataset,
    IgnoreRegionsLVISV1Dataset,
    IgnoreRegionsMixin,
)
from .seeded import SeededDataset

__all__ = [
    'AnnotationFileDataset',
    'FederatedAnnotationFileDataset',
    'FederatedLVISV05Dataset',
    'FederatedLVISV1Dataset',
    'FederatedMixin',
    'IgnoreRegionsAnnotationFileDataset',
    'IgnoreRegionsLVISV05Dataset',
    'IgnoreRegionsLVISV1Dataset',
    'IgnoreRegionsMixin',
    'SeededDataset',
]
