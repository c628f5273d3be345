"""The long-tail toolbox for MMDetection 3.x.

Importing the package registers everything it has in ``mmdet.registry``.
"""

from . import compat

compat.prepare()

__version__ = '0.1.0'
