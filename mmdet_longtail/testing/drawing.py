"""Characters of fonts, drawn on textures with visible masks."""

import colorsys
import functools
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from mmdet_longtail.errors import LongTailError, check

# The code points of matplotlib's other fonts do not name what these fonts
# draw: Computer Modern has its own encoding, LastResort draws boxes.
UNICODE_FONTS = ('DejaVu', 'STIXGeneral')
MIN_FONTS = 8
FONT_SUFFIXES = ('.ttf', '.otf')
# Letters and digits. Symbols differ so much that a few examples suffice.
CATEGORIES = ('Lu', 'Ll', 'Lt', 'Lo', 'Nd', 'Nl', 'No')
INK_HEIGHT = 64  # pixels
MAX_ROTATION = 60.0  # degrees
MAX_SHEAR = 0.4
MIN_VISIBLE = 0.6  # of the area of a glyph, each time it is covered
GLYPH_EXTENT = (0.13, 0.28)  # longer side, as a fraction of the image size
load_font = functools.lru_cache(maxsize=1024)(ImageFont.truetype)


def font_files(fonts: Iterable[str]) -> list[Path]:
    """List font files, and those in folders and below, sorted per folder.

    Raises:
        LongTailError: If a path is neither a file nor a folder with fonts.
    """
    files: list[Path] = []
    for path in map(Path, fonts):
        found = [path] if path.is_file() else sorted(path.rglob('*'))
        found = [f for f in found if f.suffix.lower() in FONT_SUFFIXES]
        check(
            found,
            f'{path}: expected a font ({" or ".join(FONT_SUFFIXES)}) or a '
            'folder of fonts, found none; give another --fonts',
        )
        files += found
    return files


@functools.cache
def fonts_of_characters(
    fonts: tuple[str, ...] = (),
) -> dict[str, tuple[str, ...]]:
    """Map every character to the paths of the fonts that contain it.

    The fonts are matplotlib's and those of `font_files`.

    Raises:
        LongTailError: If a file is no font.
    """
    folder = Path(matplotlib.get_data_path(), 'fonts', 'ttf')
    found = sorted(folder.glob('*.ttf'))
    files = [path for path in found if path.name.startswith(UNICODE_FONTS)]
    paths: dict[str, list[str]] = {}
    for file in map(str, [*files, *font_files(fonts)]):
        try:
            charmap = FT2Font(file).get_charmap()
        except (OSError, RuntimeError) as error:
            raise LongTailError(
                f'{file}: not a readable font ({error}); leave it out '
                'of --fonts'
            ) from None
        for code_point in charmap:
            paths.setdefault(chr(code_point), []).append(file)
    return {char: tuple(own) for char, own in sorted(paths.items())}


@functools.cache
def available_characters(fonts: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the letters and numbers that at least MIN_FONTS fonts contain."""
    return tuple(
        char
        for char, paths in fonts_of_characters(fonts).items()
        if len(paths) >= MIN_FONTS and unicodedata.category(char) in CATEGORIES
    )


@functools.lru_cache(maxsize=8192)
def draw_ink(char: str, path: str) -> np.ndarray:
    """Draw a character with the font at a path, cropped to its ink, (h, w).

    Coverage is 0 to 255, uint8. h or w is 0 for a character without ink.
    """
    font = load_font(path, INK_HEIGHT)
    image = Image.new('L', (6 * INK_HEIGHT, 6 * INK_HEIGHT))
    place = (2 * INK_HEIGHT, 2 * INK_HEIGHT)
    ImageDraw.Draw(image).text(place, char, 255, font)
    return np.asarray(image.crop(image.getbbox() or (0, 0, 0, 0)))


def draw_thumbnail(char: str, paths: tuple[str, ...]) -> np.ndarray | None:
    """Draw the mean coverage of three fonts in a square, 0 to 1, (256,).

    None for a character that is mostly a line, a dot or a block, because
    clutter looks alike.
    """
    faces = []
    for path in paths[::4][:3]:
        ink = draw_ink(char, path)
        longest = max(ink.shape)
        is_wide = longest > 0 and min(ink.shape) >= 0.45 * longest
        if not is_wide or not 0.1 < ink.mean() / 255 < 0.65:
            return None
        missing = longest - np.array(ink.shape)
        square = np.pad(ink, np.stack([missing // 2, -(-missing // 2)], 1))
        faces.append(cv2.resize(square, (16, 16), None, 0, 0, cv2.INTER_AREA))
    mean = cv2.GaussianBlur(np.mean(faces, axis=0) / 255, (0, 0), 0.8)
    return mean.ravel()


def choose_characters(
    num_classes: int, fonts: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Choose characters that look unlike each other.

    Farthest-point sampling, starting at 'A': the next character is the one
    with the largest Euclidean distance to its nearest chosen neighbor. Points
    are thumbnails. Characters without a thumbnail follow at the end, in the
    order of their code points.
    """
    paths = fonts_of_characters(fonts)
    drawn = {
        char: draw_thumbnail(char, paths[char])
        for char in available_characters(fonts)
    }
    thumbnails = {c: image for c, image in drawn.items() if image is not None}
    clear = [*thumbnails]
    points = np.stack([*thumbnails.values()])  # (K, D)
    distance = np.full(len(clear), np.inf)  # to the nearest chosen one, (K,)
    chosen = ['A']
    while len(chosen) < min(num_classes, len(clear)):
        last = clear.index(chosen[-1])
        to_last = np.linalg.norm(points - points[last], axis=1)
        distance = np.minimum(distance, to_last)
        distance[last] = -1
        chosen.append(clear[distance.argmax()])
    unclear = [char for char in drawn if char not in thumbnails]
    return (*chosen, *unclear)[:num_classes]


def class_name(char: str) -> str:
    """Return a readable ASCII name, such as ``latin_small_letter_a``."""
    return unicodedata.name(char).lower().replace(' ', '_')


def draw_image(
    rng: np.random.Generator,
    characters: list[str],
    size: int,
    fonts: tuple[str, ...] = (),
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Draw background, glyphs and the strokes that cover parts of them.

    Later glyphs cover earlier ones. Glyphs shrink until each of them is
    recognizable. Returns the image, (size, size, 3), uint8, and one visible
    mask per glyph, (size, size), bool.
    """
    scale, masks = 1.0, None
    while masks is None:
        image = draw_background(rng, size)
        masks = draw_glyphs(rng, image, characters, scale, fonts)
        scale *= 0.9
    draw_strokes(rng, image, masks)
    return image.clip(0, 255).astype(np.uint8), masks


def random_color(rng: np.random.Generator) -> np.ndarray:
    """Return a random color, 0 to 255, (3,), float64."""
    return 255 * np.array(colorsys.hsv_to_rgb(*rng.random(3)))


def contrasting_color(
    rng: np.random.Generator, background: np.ndarray
) -> np.ndarray:
    """Return a random color, (3,), that is brighter or darker than another."""
    for _ in range(20):
        color = random_color(rng)
        if abs(color.mean() - background.mean()) > 50:
            return color
    return np.full(3, 255.0 if background.mean() < 128 else 0.0)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw blotches, grain and clutter, 0 to 255, (size, size, 3), float32."""
    image = np.full((size, size, 3), random_color(rng), np.float32)
    for cells in (3, 9, 27):
        noise = rng.normal(0, 40 / np.sqrt(cells), (cells, cells, 3))
        noise = noise.astype(np.float32)
        image += cv2.resize(
            noise, image.shape[:2], None, 0, 0, cv2.INTER_CUBIC
        )
    image += rng.normal(0, rng.uniform(2, 8), (size, size, 1))
    for _ in range(rng.integers(2, 7)):
        start, end = rng.integers(0, size, (2, 2)).tolist()
        color = (image[start[1], start[0]] + rng.normal(0, 30, 3)).tolist()
        if rng.random() < 0.5:
            axes = rng.integers(size // 20, size // 5, 2).tolist()
            ellipse = start, axes, int(rng.integers(180)), 0, 360
            cv2.ellipse(image, *ellipse, color, -1, cv2.LINE_AA)
        else:
            width = int(rng.integers(1, 4))
            cv2.line(image, start, end, color, width, cv2.LINE_AA)
    return image


def draw_glyph(
    rng: np.random.Generator,
    char: str,
    image_size: float,
    paths: tuple[str, ...],
) -> np.ndarray:
    """Draw a character in a random font, size, rotation and slant.

    Coverage is 0 to 1, (h, w), float32, in proportion to the image around it.
    """
    path = paths[rng.integers(len(paths))]
    ink = draw_ink(char, path)
    check(
        ink.size,
        f'{path}: draws nothing for U+{ord(char):04X}; leave it out of '
        '--fonts',
    )
    extent = image_size * np.exp(rng.uniform(*np.log(GLYPH_EXTENT)))
    scale = extent / max(*ink.shape, 1)
    height, width = (max(round(side * scale), 2) for side in ink.shape)
    ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.array([[cos, -sin], [sin, cos]])
    shear = np.array([[1, rng.uniform(-MAX_SHEAR, MAX_SHEAR)], [0, 1]])
    matrix = rotation @ shear  # about the center, (2, 2)
    diagonal = int(1.3 * np.hypot(width, height)) + 3
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = (diagonal - 1) / 2 - matrix @ center
    affine = np.column_stack([matrix, shift])
    rotated = cv2.warpAffine(ink, affine, (diagonal, diagonal))
    # A hairline in a small image covers no pixel by half.
    rotated = rotated / rotated.max()
    left, top, width, height = cv2.boundingRect((rotated > 0.25).astype('u1'))
    return rotated[top : top + height, left : left + width].astype(np.float32)


def place_glyph(
    rng: np.random.Generator, shape: tuple[int, ...], occupied: np.ndarray
) -> tuple[slice, slice]:
    """Find rows and columns where a glyph covers little of the earlier ones.

    Of thirty random places the first with at most a tenth occupied, (size,
    size), else the emptiest.
    """
    best, least = (slice(0), slice(0)), np.inf
    for _ in range(30):
        top, left = rng.integers(len(occupied) - np.array(shape) + 1)
        place = slice(top, top + shape[0]), slice(left, left + shape[1])
        fraction = occupied[place].mean()
        if fraction < least:
            best, least = place, fraction
        if fraction <= 0.1:
            break
    return best


def draw_glyphs(
    rng: np.random.Generator,
    image: np.ndarray,
    characters: list[str],
    scale: float,
    fonts: tuple[str, ...] = (),
) -> list[np.ndarray] | None:
    """Draw glyphs into an image, (size, size, 3), scaled by a factor up to 1.

    Returns one visible mask per glyph, (size, size), bool, or None if a glyph
    is covered by more than 1 - MIN_VISIBLE.
    """
    size = len(image)
    occupied = np.zeros((size, size), bool)
    masks: list[np.ndarray] = []
    areas = []
    for char in characters:
        paths = fonts_of_characters(fonts)[char]
        ink = draw_glyph(rng, char, size * scale, paths)
        place = place_glyph(rng, ink.shape, occupied)
        occupied[place] = True
        color = contrasting_color(rng, image[place].mean(axis=(0, 1)))
        opacity = ink[..., None] * rng.uniform(0.8, 1.0)
        image[place] += opacity * (color - image[place])
        for mask in masks:
            mask[place] &= ink <= 0.5
        masks.append(np.zeros((size, size), bool))
        masks[-1][place] = ink > 0.3
        areas.append(masks[-1].sum())
    visible = np.array([mask.sum() for mask in masks])
    return masks if (visible >= MIN_VISIBLE * np.array(areas)).all() else None


def draw_strokes(
    rng: np.random.Generator, image: np.ndarray, masks: list[np.ndarray]
) -> None:
    """Draw up to three strokes into an image where they hide little.

    The strokes are cut out of the visible masks, (size, size), in place.
    """
    size = len(image)
    for _ in range(rng.integers(0, 4)):
        canvas = np.zeros((size, size), np.uint8)
        start, end = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(canvas, start, end, 1, int(rng.integers(1, 3)))
        stroke = canvas > 0
        left = [mask & ~stroke for mask in masks]
        if all(
            rest.sum() >= MIN_VISIBLE * mask.sum()
            for rest, mask in zip(left, masks)
        ):
            image[stroke] = random_color(rng)
            masks[:] = left


def annotate(mask: np.ndarray) -> dict:
    """Trace a visible mask, (h, w), bool, with its holes filled.

    Returns ``bbox``, ``area`` and ``segmentation`` of an LVIS annotation, in
    pixels.
    """
    # Contours run through pixel centers. Without upsampling, they would cut
    # half a pixel from each side of a thin stroke.
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(
        doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons = sorted(
        ((points[:, 0] + 0.5) / 2).ravel().tolist()
        for points in (cv2.approxPolyDP(c, 0.6, True) for c in contours)
        if len(points) >= 3
    )
    outlines = [np.array(p, np.float32).reshape(-1, 2) for p in polygons]
    area = sum(map(cv2.contourArea, outlines))
    points = np.concatenate(outlines).astype(np.float64)
    corner, size = points.min(axis=0), np.ptp(points, axis=0)
    bbox = np.concatenate([corner, size]).tolist()
    return dict(bbox=bbox, area=area, segmentation=polygons)
