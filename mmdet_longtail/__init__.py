"""The long-tail toolbox for MMDetection 3.x.

Importing the package registers everything it has in ``mmdet.registry``.
"""

from . import compat

compat.prepare()

# These need the stack that the line above has checked.
from . import (  # noqa: E402
    assigners,
    bbox_heads,
    datasets,
    dense_heads,
    file_backend,
    hooks,
    layers,
    losses,
    metrics,
    optional_masks,
    resumable_loops,
    resumable_runner,
    roi_heads,
    samplers,
    test_time_augmentation,
)

__all__ = [
    'assigners',
    'bbox_heads',
    'datasets',
    'dense_heads',
    'file_backend',
    'hooks',
    'layers',
    'losses',
    'metrics',
    'optional_masks',
    'resumable_loops',
    'resumable_runner',
    'roi_heads',
    'samplers',
    'test_time_augmentation',
]
__version__ = '0.1.0'
