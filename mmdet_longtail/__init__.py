"""The long-tail toolbox for MMDetection 3.x.

Importing the package registers everything it has in ``mmdet.registry``.
Without mmdet, the parts that need no detector can be imported.
"""

from importlib.util import find_spec

__version__ = '0.1.0'

if find_spec('mmdet') is not None:
    from mmdet_longtail import compat

    compat.prepare()

    # These need the stack that the line above has checked.
    from mmdet_longtail import datasets, engine, models  # noqa: F401
    from mmdet_longtail.evaluation import metrics  # noqa: F401
