"""Characters of matplotlib's fonts: which there are, and their shapes."""

import functools
import unicodedata
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

# The code points of matplotlib's other fonts do not name what these fonts
# draw: Computer Modern has its own encoding, LastResort draws boxes.
UNICODE_FONTS = ('DejaVu', 'STIXGeneral')
MIN_FONTS = 8
# Letters and digits. Symbols differ so much that a few examples suffice.
CATEGORIES = ('Lu', 'Ll', 'Lt', 'Lo', 'Nd', 'Nl', 'No')
INK_HEIGHT = 64  # pixels
THUMBNAIL_SIZE = (16, 16)  # pixels
load_font = functools.lru_cache(maxsize=1024)(ImageFont.truetype)


@functools.cache
def fonts_of_characters() -> dict[str, tuple[str, ...]]:
    """Map every character to the paths of the fonts that contain it."""
    folder = Path(matplotlib.get_data_path(), 'fonts', 'ttf')
    fonts: dict[str, list[str]] = {}
    for path in sorted(folder.glob('*.ttf')):
        if path.name.startswith(UNICODE_FONTS):
            for code_point in FT2Font(str(path)).get_charmap():
                fonts.setdefault(chr(code_point), []).append(str(path))
    return {char: tuple(paths) for char, paths in sorted(fonts.items())}


@functools.cache
def available_characters() -> tuple[str, ...]:
    """Return the letters and numbers that at least MIN_FONTS fonts contain."""
    return tuple(
        char
        for char, paths in fonts_of_characters().items()
        if len(paths) >= MIN_FONTS and unicodedata.category(char) in CATEGORIES
    )


@functools.lru_cache(maxsize=8192)
def draw_ink(char: str, path: str) -> np.ndarray:
    """Draw a character with the font at a path, cropped to its ink, (h, w).

    Coverage is 0 to 255, uint8. h or w is 0 for a character without ink.
    """
    font = load_font(path, INK_HEIGHT)
    left, top, right, bottom = font.getbbox(char)
    size = max(int(right - left), 1) + 8, max(int(bottom - top), 1) + 8
    image = Image.new('L', size)
    ImageDraw.Draw(image).text((4 - left, 4 - top), char, 255, font)
    return np.asarray(image.crop(image.getbbox() or (0, 0, 0, 0)))


def draw_thumbnail(char: str) -> np.ndarray | None:
    """Draw the mean coverage of three faces in a square, 0 to 1, (256,).

    None for a character that is mostly a line, a dot or a block, because
    clutter looks alike.
    """
    faces = []
    for path in fonts_of_characters()[char][::4][:3]:
        ink = draw_ink(char, path)
        longest = max(ink.shape)
        if longest == 0 or min(ink.shape) < 0.45 * longest:
            return None
        if not 0.1 < ink.mean() / 255 < 0.65:
            return None
        missing = longest - np.array(ink.shape)
        square = np.pad(ink, np.stack([missing // 2, -(-missing // 2)], 1))
        faces.append(
            cv2.resize(square, THUMBNAIL_SIZE, interpolation=cv2.INTER_AREA)
        )
    mean = cv2.GaussianBlur(np.mean(faces, axis=0) / 255, (0, 0), 0.8)
    return mean.ravel()


def choose_characters(num_classes: int) -> tuple[str, ...]:
    """Choose characters that look unlike each other.

    Farthest-point sampling, starting at 'A': the next character is the one
    with the largest Euclidean distance to its nearest chosen neighbor. Points
    are thumbnails. Characters without a thumbnail follow at the end, in the
    order of their code points.
    """
    drawn = {char: draw_thumbnail(char) for char in available_characters()}
    clear = [char for char, image in drawn.items() if image is not None]
    points = np.stack([i for i in drawn.values() if i is not None])  # (K, D)
    chosen = [clear.index('A')]
    distance = np.full(len(clear), np.inf)  # to the nearest chosen one, (K,)
    while len(chosen) < min(num_classes, len(clear)):
        to_last = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distance = np.minimum(distance, to_last)
        distance[chosen[-1]] = -1
        chosen.append(int(distance.argmax()))
    unclear = [char for char, image in drawn.items() if image is None]
    return (*(clear[i] for i in chosen), *unclear)[:num_classes]


def class_name(char: str) -> str:
    """Return a readable ASCII name, such as ``latin_small_letter_a``."""
    return unicodedata.name(char).lower().replace(' ', '_')
