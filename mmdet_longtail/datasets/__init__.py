from .annotation_file import AnnotationFileDataset
from .federated import (
    FederatedAnnotationFileDataset,
    FederatedLVISV05Dataset,
    FederatedLVISV1Dataset,
    FederatedMixin,
)

__all__ = [
    'AnnotationFileDataset',
    'FederatedAnnotationFileDataset',
    'FederatedLVISV05Dataset',
    'FederatedLVISV1Dataset',
    'FederatedMixin',
]
