"""The long-tail toolbox for MMDetection 3.x.

The import registers everything the package has in ``mmdet.registry``.
Without mmdet it registers nothing, and what needs no detector works alone:
statistics, and evaluation and reports of result files.
"""

from importlib.util import find_spec

__version__ = '0.2.0'

if find_spec('mmdet') is not None:
    # The first of them checks that the stack is supported.
    from mmdet_longtail import datasets, engine, models  # noqa: F401
    from mmdet_longtail.evaluation import metrics  # noqa: F401
    from mmdet_longtail.utils.arguments import explain_mistakes

    explain_mistakes('mmdet')
