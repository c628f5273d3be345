"""The entry of every tool, which turns errors into an exit status.

A mistake of the user ends in one line on stderr and exit status 1. A bug
keeps its stack trace.
"""

import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from mmdet_longtail.errors import LongTailError, one_line


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool and exit with its status.

    Args:
        main (Callable): Returns an exit status, or None for 0.
    """
    # mmengine imports pkg_resources to find the mmdet:: bases.
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
    try:
        sys.exit(main())
    except LongTailError as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
