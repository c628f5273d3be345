from .annotation_file import AnnotationFileDataset

__all__ = ['AnnotationFileDataset']
