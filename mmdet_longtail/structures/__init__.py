"""The nouns that everything else passes on: counts, annotations, checkpoints.

Importing needs numpy only; `Checkpoint` needs torch and is imported when it is
asked for.
"""

from typing import TYPE_CHECKING, Any

from mmdet_longtail.structures.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from mmdet_longtail.structures.checkpoint import Checkpoint

__all__ = ['Checkpoint', 'ClassStatistics']


def __getattr__(name: str) -> Any:
    if name == 'Checkpoint':
        from mmdet_longtail.structures.checkpoint import Checkpoint

        return Checkpoint
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
