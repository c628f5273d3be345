"""Colors, figure files and HTML pages that all plots share."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.class_statistics import ClassGroup

GROUP_COLORS = dict(rare='#d1495b', common='#edae49', frequent='#30638e')
DETECTOR_COLORS = '#6b7280 #d97706 #2563eb #059669 #9333ea #be123c'.split()
INK = '#333333'


def group_colors(groups: Sequence[ClassGroup]) -> list[Any]:
    """Return one color per group, shades for groups other than LVIS's."""
    shades = colormaps['viridis'](np.linspace(0.85, 0.15, len(groups)))
    names = [group.name for group in groups]
    return [GROUP_COLORS.get(n, s) for n, s in zip(names, shades, strict=True)]


def finish(axes: Axes, num_columns: int = 2) -> None:
    """Hide two spines and put the legend above the plot."""
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='lower center',
        bbox_to_anchor=(0.5, 1),
        ncols=num_columns,
        frameon=False,
    )


def figure_bytes(figure: Figure, path: str | Path) -> bytes:
    """Render a figure in the format of a file suffix.

    Args:
        figure (Figure): The figure.
        path (str | Path): The file to write later; no suffix means PNG.

    Raises:
        LongTailError: If matplotlib has no such format.
    """
    content = io.BytesIO()
    try:
        figure.savefig(content, format=Path(path).suffix[1:] or 'png', dpi=150)
    except ValueError as error:
        raise LongTailError(f'{path}: {error}') from None
    return content.getvalue()


def render_page(template: str, **content: Any) -> str:
    """Render an HTML template of this folder.

    Args:
        template (str): File name of the template.
        **content (Any): Variables of the template.
    """
    environment = Environment(
        loader=PackageLoader('mmdet_longtail', 'visualization'),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)


def display_name(class_name: str) -> str:
    """Return a class name as plain text."""
    return class_name.replace('_', ' ')


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Compute Spearman's rank correlation, NaN if one side is constant."""
    # It takes a second to import, and most figures do without.
    from scipy.stats import spearmanr

    return float(spearmanr(x, y)[0])
