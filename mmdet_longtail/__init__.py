"""The long-tail toolbox for MMDetection 3.x.

Importing the package registers everything it has in ``mmdet.registry``.
"""

from . import compat

compat.prepare()

# These need the stack that the line above has checked.
from . import (  # noqa: E402
    bbox_heads,
    datasets,
    hooks,
    losses,
    metrics,
    roi_heads,
    samplers,
)

__all__ = [
    'bbox_heads',
    'datasets',
    'hooks',
    'losses',
    'metrics',
    'roi_heads',
    'samplers',
]
__version__ = '0.1.0'
