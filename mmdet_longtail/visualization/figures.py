"""Colors, images, figure files and HTML pages that all plots share."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import image_file_name

GROUP_COLORS = {
    'rare': '#d1495b',
    'common': '#edae49',
    'frequent': '#30638e',
}
DETECTOR_COLORS = '#6b7280 #d97706 #2563eb #059669 #9333ea #be123c'.split()
INK = '#333333'


def detector_color(i: int) -> str:
    """Return the color of the i-th detector."""
    return DETECTOR_COLORS[i % len(DETECTOR_COLORS)]


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


def load_image(folder: str | Path, entry: Mapping[str, Any]) -> Image.Image:
    """Load an image of a validation set, upright and in RGB.

    Args:
        folder (str | Path): The folder where file names start.
        entry (Mapping[str, Any]): The image in a COCO or LVIS file.

    Raises:
        LongTailError: If the image is missing, unreadable, or not of the
            annotated size.
    """
    path = Path(folder, image_file_name(entry))
    if not path.is_file() and path.name.startswith('COCO_'):
        path = path.with_name(path.name[-16:])  # LVIS v0.5 has 2014's names.
    if not path.is_file():
        raise LongTailError(
            f'{path}: no such image; the file names in the annotations must '
            'start from --images'
        )
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert('RGB')
    except OSError:
        raise LongTailError(f'{path}: not a readable image') from None
    expected = (
        entry.get('width', image.width),
        entry.get('height', image.height),
    )
    if image.size != expected:
        raise LongTailError(
            f'{path}: is {image.width} x {image.height}, but the annotations '
            f'have {expected[0]} x {expected[1]}; are these the images of '
            'the validation set?'
        )
    return image


def display_name(class_name: str) -> str:
    """Return a class name as plain text."""
    return class_name.replace('_', ' ')


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Compute Spearman's rank correlation, NaN if one side is constant."""
    # It takes a second to import, and most figures do without.
    from scipy.stats import spearmanr

    return float(spearmanr(x, y)[0])
