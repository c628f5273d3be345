"""Glyphs: a long-tailed detection set drawn from the fonts of matplotlib.

A class is a character. Its instances are drawn in many faces, sizes,
rotations and colours on textured backgrounds, among clutter and behind
strokes that cover a part of them. The annotations are LVIS v1 JSON files with
boxes, polygons, frequency groups and the federated fields. Everything is
decided by the arguments: the same ones give the same bytes, however many
processes draw.

How hard the default set is was settled with softmax detectors alone
(configs/glyphs/faster-rcnn_r18_fpn_softmax_glyphs.py). The classes that are
rare in it reach a bbox AP of 0.075 by LVIS's rules and 0.050 by COCO's; when
the same generator gives every class as many images (imbalance 1, the same
validation set), the same classes reach 0.431 and 0.354.
"""

import colorsys
import functools
import hashlib
import json
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from rich.progress import track

from mmdet_longtail.errors import LongTailError

# The other fonts that matplotlib ships do not draw what their code points
# say: Computer Modern has an encoding of its own, LastResort draws boxes.
UNICODE_FONTS = ('DejaVu', 'STIXGeneral')
MIN_FONTS = 8
# Letters and digits; symbols are so unlike each other that a few examples
# are enough to tell them apart.
CATEGORIES = ('Lu', 'Ll', 'Lt', 'Lo', 'Nd', 'Nl', 'No')
MANIFEST = 'glyphs.json'
GLYPHS_PER_IMAGE = 8
VAL_INSTANCES_PER_CLASS = 20
INK_HEIGHT = 64
MAX_ROTATION = 60.0  # degrees
MAX_SHEAR = 0.4
MIN_VISIBLE = 0.6  # of the area of a glyph, each time it is covered


@dataclass(frozen=True)
class GlyphSettings:
    """What decides every byte of a generated set.

    Args:
        num_classes (int): Number of characters, at least 2.
        num_images (int): Number of training images. They hold about eight
            glyphs each.
        image_size (int): Width and height of an image in pixels, at least 64.
        imbalance (float): Image count of the most frequent class divided by
            that of the least frequent one. 1 makes a balanced set.
        seed (int): Seed of everything random, not negative.

    Raises:
        LongTailError: If a value is out of its range.
    """

    num_classes: int = 120
    num_images: int = 1600
    image_size: int = 128
    imbalance: float = 2000.0
    seed: int = 0

    def __post_init__(self) -> None:
        available = len(available_characters())
        if not 2 <= self.num_classes <= available:
            raise LongTailError(
                f'classes: expected 2 to {available} (the characters found in '
                f'{MIN_FONTS} fonts or more), got {self.num_classes}'
            )
        if self.num_images < 1:
            raise LongTailError(
                f'images: expected at least 1, got {self.num_images}'
            )
        if self.num_images * GLYPHS_PER_IMAGE < self.num_classes:
            raise LongTailError(
                f'images: expected at least '
                f'{-(-self.num_classes // GLYPHS_PER_IMAGE)} for '
                f'{self.num_classes} classes, got {self.num_images}'
            )
        if not 64 <= self.image_size <= 4096:
            raise LongTailError(
                'image-size: expected 64 to 4096 pixels, got '
                f'{self.image_size}'
            )
        if not 1 <= self.imbalance < float('inf'):
            raise LongTailError(
                'imbalance: expected a number of at least 1, '
                f'got {self.imbalance:g}'
            )
        if self.seed < 0:
            raise LongTailError(f'seed: expected 0 or more, got {self.seed}')


@dataclass(frozen=True)
class ImagePlan:
    """One image before it is drawn.

    Args:
        split (str): ``train`` or ``val``.
        index (int): Index of the image in its split.
        labels (tuple[int, ...]): Labels of its glyphs, in drawing order.
        characters (tuple[str, ...]): The character of every label.
        image_size (int): Width and height in pixels.
        seed (int): Seed of the set.
    """

    split: str
    index: int
    labels: tuple[int, ...]
    characters: tuple[str, ...]
    image_size: int
    seed: int

    @property
    def file_name(self) -> str:
        return f'{self.split}/{self.index:06d}.jpg'


# ------------------------------------------------------------- characters


@functools.cache
def fonts_of_characters() -> dict[str, tuple[str, ...]]:
    """Map every character to the paths of the fonts that have it."""
    folder = Path(matplotlib.get_data_path(), 'fonts', 'ttf')
    fonts: dict[str, list[str]] = {}
    for path in sorted(folder.glob('*.ttf')):
        if path.name.startswith(UNICODE_FONTS):
            for code_point in FT2Font(str(path)).get_charmap():
                fonts.setdefault(chr(code_point), []).append(str(path))
    return {char: tuple(paths) for char, paths in sorted(fonts.items())}


@functools.cache
def available_characters() -> tuple[str, ...]:
    """Return the letters and numbers found in enough fonts."""
    return tuple(
        char
        for char, paths in fonts_of_characters().items()
        if len(paths) >= MIN_FONTS and unicodedata.category(char) in CATEGORIES
    )


@functools.lru_cache(maxsize=1024)
def load_font(path: str) -> ImageFont.FreeTypeFont:
    """Load a font at the height of ``draw_ink``."""
    return ImageFont.truetype(path, INK_HEIGHT)


@functools.lru_cache(maxsize=8192)
def draw_ink(char: str, path: str) -> np.ndarray:
    """Draw a character and crop it to its ink.

    Args:
        char (str): The character.
        path (str): Path of a font that has it.

    Returns:
        np.ndarray: Coverage, 0 to 255, (h, w), uint8. h or w is 0 for a
        character without ink.
    """
    font = load_font(path)
    left, top, right, bottom = font.getbbox(char)
    image = Image.new(
        'L', (max(int(right - left), 1) + 8, max(int(bottom - top), 1) + 8)
    )
    ImageDraw.Draw(image).text((4 - left, 4 - top), char, 255, font)
    box = image.getbbox()
    return np.asarray(image.crop(box if box else (0, 0, 0, 0)))


def draw_thumbnail(char: str, size: int = 16) -> np.ndarray | None:
    """Draw a character to compare it with others.

    Args:
        char (str): The character.
        size (int): Width and height of the thumbnail in pixels.

    Returns:
        np.ndarray | None: Mean coverage of three faces, scaled to fill the
        square, 0 to 1, (size * size,). None for a character that is mostly
        a line, a dot or a block: clutter looks like these.
    """
    faces = []
    for path in fonts_of_characters()[char][::4][:3]:
        ink = draw_ink(char, path)
        longest = max(ink.shape)
        if longest == 0 or min(ink.shape) < 0.45 * longest:
            return None
        if not 0.1 < ink.mean() / 255 < 0.65:
            return None
        square = np.zeros((longest, longest), np.uint8)
        top = (longest - ink.shape[0]) // 2
        left = (longest - ink.shape[1]) // 2
        square[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
        faces.append(
            cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
        )
    mean = cv2.GaussianBlur(np.mean(faces, axis=0) / 255, (0, 0), 0.8)
    return mean.ravel()


def choose_characters(num_classes: int) -> tuple[str, ...]:
    """Choose characters that look unlike each other.

    Farthest-point selection: from 'A' on, the next character is the one whose
    nearest chosen neighbour is farthest away, by the Euclidean distance of
    thumbnails. When the clearly drawn characters are used up, the others
    follow in the order of their code points.

    Args:
        num_classes (int): How many, up to ``len(available_characters())``.

    Returns:
        tuple[str, ...]: The characters, most distinct first.
    """
    clear, thumbnails = [], []
    for char in available_characters():
        thumbnail = draw_thumbnail(char)
        if thumbnail is not None:
            clear.append(char)
            thumbnails.append(thumbnail)
    points = np.stack(thumbnails)  # (K, size * size)
    chosen = [clear.index('A')]
    distance = np.full(len(clear), np.inf)  # to the nearest chosen one, (K,)
    while len(chosen) < min(num_classes, len(clear)):
        to_last = np.linalg.norm(points - points[chosen[-1]], axis=1)
        distance = np.minimum(distance, to_last)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    characters = [clear[i] for i in chosen]
    left_over = sorted(set(available_characters()) - set(clear))
    return tuple((characters + left_over)[:num_classes])


def class_name(char: str) -> str:
    """Return a readable ASCII name, such as ``latin_small_letter_a``."""
    return unicodedata.name(char).lower().replace(' ', '_')


# ------------------------------------------------------------------- plan


def plan_image_count(
    num_classes: int, num_images: int, imbalance: float
) -> np.ndarray:
    """Share the training images among classes, falling geometrically.

    image_count(i) is proportional to imbalance^(-i / (C - 1)) and sums to
    about ``GLYPHS_PER_IMAGE * num_images``.

    Args:
        num_classes (int): C.
        num_images (int): Number of training images.
        imbalance (float): First count divided by the last.

    Returns:
        np.ndarray: Images that contain the class, each 1 to ``num_images``,
        most frequent class first, (C,), int64.
    """
    share = imbalance ** (-np.arange(num_classes) / (num_classes - 1))
    count = GLYPHS_PER_IMAGE * num_images * share / share.sum()
    return np.clip(np.rint(count), 1, num_images).astype(np.int64)


def plan_split(
    split: str,
    image_count: np.ndarray,
    num_images: int,
    characters: tuple[str, ...],
    settings: GlyphSettings,
) -> list[ImagePlan]:
    """Decide which glyphs are in which image.

    Every class goes to the images that hold the fewest glyphs so far, ties
    broken at random, so that all images hold equally many. One glyph in eight
    is followed by a second one of its class.

    Args:
        split (str): ``train`` or ``val``.
        image_count (np.ndarray): Images that contain each class, (C,).
        num_images (int): Number of images in the split.
        characters (tuple[str, ...]): The character of every label.
        settings (GlyphSettings): Settings of the set.

    Returns:
        list[ImagePlan]: One plan per image.
    """
    rng = np.random.default_rng([settings.seed, *split.encode()])
    load = np.zeros(num_images)
    labels: list[list[int]] = [[] for _ in range(num_images)]
    for label, count in enumerate(image_count):
        order = np.lexsort((rng.random(num_images), load))[:count]
        for index in order:
            copies = 1 + int(rng.random() < 1 / 8)
            labels[index] += [label] * copies
            load[index] += copies
    return [
        ImagePlan(
            split,
            index,
            tuple(rng.permutation(row).tolist()),
            characters,
            settings.image_size,
            settings.seed,
        )
        for index, row in enumerate(labels)
    ]


# ---------------------------------------------------------------- drawing


def random_colour(rng: np.random.Generator) -> np.ndarray:
    """Return a random colour, 0 to 255, (3,), float64."""
    return 255 * np.array(
        colorsys.hsv_to_rgb(rng.random(), rng.random(), rng.random())
    )


def contrasting_colour(
    rng: np.random.Generator, background: np.ndarray
) -> np.ndarray:
    """Return a random colour that differs from ``background`` in brightness.

    Args:
        rng (np.random.Generator): Source of randomness.
        background (np.ndarray): Colour behind, 0 to 255, (3,).

    Returns:
        np.ndarray: Colour, 0 to 255, (3,), float64.
    """
    for _ in range(20):
        colour = random_colour(rng)
        if abs(colour.mean() - background.mean()) > 50:
            return colour
    return np.full(3, 255.0 if background.mean() < 128 else 0.0)


def draw_background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw blotches and grain in a random colour, with clutter on them.

    Args:
        rng (np.random.Generator): Source of randomness.
        size (int): Width and height in pixels.

    Returns:
        np.ndarray: Image, 0 to 255, (size, size, 3), float32.
    """
    image = np.full((size, size, 3), random_colour(rng), np.float32)
    for cells in (3, 9, 27):
        noise = rng.normal(0, 40 / np.sqrt(cells), (cells, cells, 3))
        image += cv2.resize(
            noise.astype(np.float32),
            (size, size),
            interpolation=cv2.INTER_CUBIC,
        )
    image += rng.normal(0, rng.uniform(2, 8), (size, size, 1))
    for _ in range(rng.integers(2, 7)):
        draw_clutter(rng, image)
    return image


def draw_clutter(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw an ellipse or a line that is no glyph into ``image``."""
    size = len(image)
    start, end = rng.integers(0, size, (2, 2)).tolist()
    colour = (image[start[1], start[0]] + rng.normal(0, 30, 3)).tolist()
    if rng.random() < 0.5:
        axes = rng.integers(size // 20, size // 5, 2).tolist()
        cv2.ellipse(
            image,
            start,
            axes,
            int(rng.integers(180)),
            0,
            360,
            colour,
            -1,
            cv2.LINE_AA,
        )
    else:
        cv2.line(
            image, start, end, colour, int(rng.integers(1, 4)), cv2.LINE_AA
        )


def draw_glyph(
    rng: np.random.Generator, char: str, image_size: float
) -> np.ndarray:
    """Draw a character in a random face, size, rotation and slant.

    Args:
        rng (np.random.Generator): Source of randomness.
        char (str): The character.
        image_size (float): Width and height of the image it is for.

    Returns:
        np.ndarray: Coverage, 0 to 1, (h, w), float32.
    """
    paths = fonts_of_characters()[char]
    ink = draw_ink(char, paths[rng.integers(len(paths))])
    extent = image_size * np.exp(rng.uniform(np.log(0.13), np.log(0.28)))
    scale = extent / max(*ink.shape, 1)
    width = max(round(ink.shape[1] * scale), 2)
    height = max(round(ink.shape[0] * scale), 2)
    ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    angle = np.deg2rad(rng.uniform(-MAX_ROTATION, MAX_ROTATION))
    turn = np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    shear = np.array([[1, rng.uniform(-MAX_SHEAR, MAX_SHEAR)], [0, 1]])
    matrix = turn @ shear  # about the centre, (2, 2)
    diagonal = int(1.3 * np.hypot(width, height)) + 3
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = (diagonal - 1) / 2 - matrix @ centre
    turned = cv2.warpAffine(
        ink, np.column_stack([matrix, shift]), (diagonal, diagonal)
    )
    # A hairline in a small image covers no pixel by half.
    turned = turned / turned.max()
    rows, columns = np.nonzero(turned > 0.25)
    turned = turned[
        rows.min() : rows.max() + 1, columns.min() : columns.max() + 1
    ]
    return turned.astype(np.float32)


def place_glyph(
    rng: np.random.Generator, shape: tuple[int, int], occupied: np.ndarray
) -> tuple[slice, slice]:
    """Find a place where a glyph covers little of the earlier ones.

    Args:
        rng (np.random.Generator): Source of randomness.
        shape (tuple[int, int]): Height and width of the glyph.
        occupied (np.ndarray): Boxes of the earlier glyphs, bool,
            (size, size).

    Returns:
        tuple[slice, slice]: Rows and columns: of thirty random places the
        first with at most a tenth occupied, else the emptiest.
    """
    size = len(occupied)
    best, least = (slice(0, shape[0]), slice(0, shape[1])), np.inf
    for _ in range(30):
        top = int(rng.integers(size - shape[0] + 1))
        left = int(rng.integers(size - shape[1] + 1))
        place = slice(top, top + shape[0]), slice(left, left + shape[1])
        share = occupied[place].mean()
        if share < least:
            best, least = place, share
        if share <= 0.1:
            break
    return best


def draw_image(plan: ImagePlan) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Draw one image.

    In one image out of twenty an extra glyph of one of its classes is left
    without annotation, the case for which LVIS has
    ``not_exhaustive_category_ids``.

    Args:
        plan (ImagePlan): What to draw.

    Returns:
        tuple[np.ndarray, list[np.ndarray], int]: The image, (size, size, 3),
        uint8; a visible mask, (size, size), bool, for each of
        ``plan.labels``; the label drawn once more without annotation or -1.
    """
    rng = np.random.default_rng([plan.seed, plan.index, *plan.split.encode()])
    labels = list(plan.labels)
    unannotated = -1
    if labels and rng.random() < 0.05:
        unannotated = int(rng.choice(labels))
        labels.append(unannotated)
    scale = 1.0
    while True:
        image = draw_background(rng, plan.image_size)
        masks = draw_glyphs(
            rng, image, [plan.characters[label] for label in labels], scale
        )
        if masks is not None:
            break
        scale *= 0.9
    draw_strokes(rng, image, masks)
    image = image.clip(0, 255).astype(np.uint8)
    return image, masks[: len(plan.labels)], unannotated


def draw_glyphs(
    rng: np.random.Generator,
    image: np.ndarray,
    characters: list[str],
    scale: float,
) -> list[np.ndarray] | None:
    """Draw glyphs into ``image``, the later ones before the earlier ones.

    Args:
        rng (np.random.Generator): Source of randomness.
        image (np.ndarray): 0 to 255, (size, size, 3), changed in place.
        characters (list[str]): What to draw.
        scale (float): Factor on the size of the glyphs, up to 1.

    Returns:
        list[np.ndarray] | None: A visible mask for each, (size, size), bool;
        None if so much is covered of one that it cannot be recognised.
    """
    size = len(image)
    occupied = np.zeros((size, size), bool)
    masks: list[np.ndarray] = []
    areas = []
    for char in characters:
        ink = draw_glyph(rng, char, size * scale)
        place = place_glyph(rng, (ink.shape[0], ink.shape[1]), occupied)
        occupied[place] = True
        colour = contrasting_colour(rng, image[place].mean(axis=(0, 1)))
        opacity = ink[..., None] * rng.uniform(0.8, 1.0)
        image[place] += opacity * (colour - image[place])
        for mask in masks:
            mask[place] &= ink <= 0.5
        mask = np.zeros((size, size), bool)
        mask[place] = ink > 0.3
        masks.append(mask)
        areas.append(mask.sum())
    if any(
        mask.sum() < MIN_VISIBLE * area for mask, area in zip(masks, areas)
    ):
        return None
    return masks


def draw_strokes(
    rng: np.random.Generator, image: np.ndarray, masks: list[np.ndarray]
) -> None:
    """Draw up to three strokes before the glyphs, where they hide little.

    Args:
        rng (np.random.Generator): Source of randomness.
        image (np.ndarray): 0 to 255, (size, size, 3), changed in place.
        masks (list[np.ndarray]): Visible masks, (size, size), bool, changed
            in place.
    """
    size = len(image)
    for _ in range(rng.integers(0, 4)):
        canvas = np.zeros((size, size), np.uint8)
        start, end = rng.integers(0, size, (2, 2)).tolist()
        cv2.line(canvas, start, end, 1, int(rng.integers(1, 3)))
        stroke = canvas > 0
        if all(
            (mask & ~stroke).sum() >= MIN_VISIBLE * mask.sum()
            for mask in masks
        ):
            image[stroke] = random_colour(rng)
            for mask in masks:
                mask &= ~stroke


def outline(mask: np.ndarray) -> list[list[float]]:
    """Trace the outer outlines of a mask.

    Args:
        mask (np.ndarray): Bool, (h, w).

    Returns:
        list[list[float]]: LVIS polygons, x and y in turn, in pixels. Holes
        are filled, as in LVIS. Empty when there is nothing to trace.
    """
    # Twice the size: outlines run through pixel centres, which would take
    # half a pixel from every side of a thin stroke.
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, _ = cv2.findContours(
        doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons = []
    for contour in contours:
        points = cv2.approxPolyDP(contour, 0.6, True)[:, 0]
        if len(points) >= 3:
            polygons.append(((points + 0.5) / 2).ravel().tolist())
    return sorted(polygons)


def annotate(mask: np.ndarray) -> dict:
    """Describe a visible mask by the keys of an LVIS annotation."""
    polygons = outline(mask)
    area = sum(
        cv2.contourArea(np.array(polygon, np.float32).reshape(-1, 2))
        for polygon in polygons
    )
    points = np.concatenate(polygons).reshape(-1, 2)
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    return dict(
        bbox=[left, top, right - left, bottom - top],
        area=area,
        segmentation=polygons,
    )


def build_image(plan: ImagePlan) -> tuple[bytes, list[dict], int]:
    """Draw, encode and annotate one image.

    Args:
        plan (ImagePlan): What to draw.

    Returns:
        tuple[bytes, list[dict], int]: The JPEG file; ``bbox``, ``area`` and
        ``segmentation`` for each of ``plan.labels``; the label drawn once
        more without annotation or -1.
    """
    image, masks, unannotated = draw_image(plan)
    _, jpeg = cv2.imencode(
        '.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    return jpeg.tobytes(), [annotate(mask) for mask in masks], unannotated


# ------------------------------------------------------------------ files


def frequency_letter(image_count: int) -> str:
    """Return the LVIS letter: r up to 10 images, c up to 100, else f."""
    return 'r' if image_count <= 10 else 'c' if image_count <= 100 else 'f'


def build_categories(
    characters: tuple[str, ...], plans: list[ImagePlan]
) -> list[dict]:
    """Describe the classes the LVIS way, counts by the training plans."""
    instance_count: Counter = Counter()
    image_count: Counter = Counter()
    for plan in plans:
        instance_count.update(plan.labels)
        image_count.update(set(plan.labels))
    return [
        dict(
            id=label + 1,
            name=class_name(char),
            synonyms=[class_name(char)],
            synset=f'{class_name(char)}.n.01',
            **{'def': f'the character U+{ord(char):04X}'},
            frequency=frequency_letter(image_count[label]),
            image_count=image_count[label],
            instance_count=instance_count[label],
        )
        for label, char in enumerate(characters)
    ]


def build_all(
    plans: list[ImagePlan], num_processes: int
) -> Iterator[tuple[bytes, list[dict], int]]:
    """Yield what ``build_image`` returns for every plan, in order."""
    if num_processes == 1:
        yield from map(build_image, plans)
        return
    with ProcessPoolExecutor(num_processes, get_context('fork')) as pool:
        yield from pool.map(build_image, plans, chunksize=16)


def write_split(
    root: Path,
    plans: list[ImagePlan],
    categories: list[dict],
    num_processes: int,
) -> None:
    """Write the images and the annotation file of a split.

    ``neg_category_ids`` is a random third of the classes that an image does
    not contain.

    Args:
        root (Path): Folder of the set.
        plans (list[ImagePlan]): The images of one split.
        categories (list[dict]): LVIS categories.
        num_processes (int): Processes that draw.
    """
    split = plans[0].split
    (root / 'images' / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    built = build_all(plans, num_processes)
    for plan, (jpeg, drawn, unannotated) in track(
        zip(plans, built), f'glyphs {split}', total=len(plans)
    ):
        (root / 'images' / plan.file_name).write_bytes(jpeg)
        rng = np.random.default_rng(
            [plan.seed, plan.index, *f'negative {split}'.encode()]
        )
        absent = sorted(set(range(len(categories))) - set(plan.labels))
        negative = rng.choice(absent, len(absent) // 3, replace=False)
        images.append(
            dict(
                id=plan.index + 1,
                file_name=plan.file_name,
                coco_url=plan.file_name,
                width=plan.image_size,
                height=plan.image_size,
                neg_category_ids=sorted((negative + 1).tolist()),
                not_exhaustive_category_ids=[unannotated + 1]
                if unannotated >= 0
                else [],
            )
        )
        for label, annotation in zip(plan.labels, drawn):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=plan.index + 1,
                    category_id=label + 1,
                    iscrowd=0,
                    **annotation,
                )
            )
    content = dict(
        info=dict(description='glyphs', version='v1'),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=categories,
    )
    path = root / 'annotations' / f'{split}.json'
    path.write_text(json.dumps(content, separators=(',', ':')))


def manifest_text(settings: GlyphSettings) -> str:
    """Return what identifies a finished set: its settings and this code."""
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    return json.dumps(
        dict(
            **asdict(settings),
            generator=code,
            matplotlib=matplotlib.__version__,
        ),
        indent=2,
    )


def make_glyphs(
    root: str | Path, settings: GlyphSettings, num_processes: int | None = None
) -> bool:
    """Write the set to ``root``, unless it is there already.

    The set appears in one piece: it is written to a folder beside ``root``
    that is renamed at the end. A set with other settings is replaced.

    Args:
        root (str | Path): Folder of the set: ``annotations/train.json``,
            ``annotations/val.json``, ``images/train``, ``images/val``.
        settings (GlyphSettings): What to write.
        num_processes (int | None): Processes that draw; by default one per
            core. The result does not depend on it.

    Returns:
        bool: True if the set was written, False if it was there.

    Raises:
        LongTailError: If ``root`` exists and is not a glyphs set, or cannot
            be written.
    """
    root = Path(root).absolute()
    manifest = root / MANIFEST
    if manifest.is_file() and manifest.read_text() == manifest_text(settings):
        return False
    if (
        root.exists()
        and not manifest.is_file()
        and not (root.is_dir() and not any(root.iterdir()))
    ):
        raise LongTailError(
            f'{root}: expected a glyphs set, an empty folder or nothing, '
            'found other files; give another --out'
        )
    cv2.setNumThreads(0)
    characters = choose_characters(settings.num_classes)
    # Not by distinctness: the first ones would be frequent and easy.
    order = np.random.default_rng(settings.seed).permutation(len(characters))
    characters = tuple(characters[i] for i in order)
    train_count = plan_image_count(
        settings.num_classes, settings.num_images, settings.imbalance
    )
    num_val_images = max(
        VAL_INSTANCES_PER_CLASS,
        VAL_INSTANCES_PER_CLASS * settings.num_classes // GLYPHS_PER_IMAGE,
    )
    val_count = np.full(settings.num_classes, VAL_INSTANCES_PER_CLASS)
    train = plan_split(
        'train', train_count, settings.num_images, characters, settings
    )
    val = plan_split('val', val_count, num_val_images, characters, settings)
    categories = build_categories(characters, train)
    if num_processes is None:
        num_processes = len(os.sched_getaffinity(0))
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(
            tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent)
        )
    except OSError as error:
        raise LongTailError(
            f'{root}: cannot write here ({error.strerror}); give another --out'
        ) from None
    try:
        for plans in (train, val):
            write_split(unfinished, plans, categories, num_processes)
        (unfinished / MANIFEST).write_text(manifest_text(settings))
        unfinished.chmod(0o755)
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return True
