"""Glyphs: a long-tailed detection dataset drawn from fonts.

A class is a character of matplotlib's fonts. Its instances are drawn in many
faces, sizes, rotations and colors on textured backgrounds, among clutter and
behind strokes that cover a part of them. The annotations are LVIS v1 JSON
files with boxes, polygons, frequency groups and the federated fields. The
settings determine every byte, whatever the number of processes.

The default difficulty was tuned with softmax detectors alone
(configs/glyphs/faster-rcnn_r18_fpn_softmax_glyphs.py). Bbox AP of the classes
that are rare in the default dataset, on the same validation set:

=====================================  ==========  ==========
training set                           LVIS rules  COCO rules
=====================================  ==========  ==========
default                                0.075       0.050
balanced (``imbalance=1``)             0.431       0.354
=====================================  ==========  ==========
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from rich.progress import track

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.testing.drawing import (
    annotate,
    available_characters,
    choose_characters,
    class_name,
    draw_image,
    font_files,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.parents import end_with_parent

MANIFEST = 'glyphs.json'
SPLITS = ('train', 'val')
GLYPHS_PER_IMAGE = 8
VAL_IMAGES_PER_CLASS = 20


@dataclass(frozen=True)
class GlyphSettings:
    """Settings that determine every byte of a generated dataset.

    Args:
        num_classes (int): Number of characters, at least 2 and at most those
            that eight fonts contain (1,830 in matplotlib's).
        num_images (int): Number of training images, with about eight glyphs
            each, enough for one glyph per class.
        image_size (int): Width and height of an image in pixels, 64 to 4096.
        imbalance (float): Image count of the most frequent class divided by
            that of the least frequent one. 1 makes a balanced dataset.
        seed (int): Random seed, 0 or more.
        checked_share (float, optional): Share of the classes that each image
            is checked for, 0..1: those that the image contains and, up to
            this share, ``neg_category_ids``. Defaults to None, a third of
            the classes that the image does not contain.
        val_checked_shares (tuple[float, ...]): ``checked_share`` of further
            annotation files of the validation images. Defaults to ().
        fonts (tuple[str, ...]): Paths of further fonts or folders of fonts.
            Defaults to (), matplotlib's alone.

    Raises:
        LongTailError: If a value is out of its range.
    """

    num_classes: int = 120
    num_images: int = 1600
    image_size: int = 128
    imbalance: float = 2000.0
    seed: int = 0
    checked_share: float | None = None
    val_checked_shares: tuple[float, ...] = ()
    fonts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        available = len(available_characters(self.fonts))
        fewest = max(-(-self.num_classes // GLYPHS_PER_IMAGE), 1)
        check_numbers('', f'[2, {available}]', num_classes=self.num_classes)
        check_numbers('', f'[{fewest}, inf)', num_images=self.num_images)
        check_numbers('', '[64, 4096]', image_size=self.image_size)
        check_numbers('', '[1, inf)', imbalance=self.imbalance)
        check_numbers('', '[0, inf)', seed=self.seed)
        if self.checked_share is not None:
            check_numbers('', '[0, 1]', checked_share=self.checked_share)
        for share in self.val_checked_shares:
            check_numbers('', '[0, 1]', val_checked_shares=share)


@cache
def class_characters(settings: GlyphSettings) -> tuple[str, ...]:
    """Return the character of each class, (C,)."""
    # Permuted, since the most distinct characters would be the frequent ones.
    rng = np.random.default_rng(settings.seed)
    characters = choose_characters(settings.num_classes, settings.fonts)
    return tuple(rng.permutation(characters))


def class_image_count(settings: GlyphSettings) -> np.ndarray:
    """Compute the training images per class, falling geometrically.

    image_count(i), (C,) int64, is proportional to imbalance^(-i / (C - 1))
    and sums to about ``GLYPHS_PER_IMAGE * num_images``. Each is 1 to
    ``num_images``.
    """
    C = settings.num_classes
    share = settings.imbalance ** (-np.arange(C) / (C - 1))
    count = GLYPHS_PER_IMAGE * settings.num_images * share / share.sum()
    return np.clip(np.rint(count), 1, settings.num_images).astype(np.int64)


@dataclass(frozen=True)
class ImagePlan:
    """Contents of one image."""

    settings: GlyphSettings
    split: str  # 'train' or 'val'
    index: int  # in its split
    labels: tuple[int, ...]  # in drawing order

    def rng(self, purpose: str = '') -> np.random.Generator:
        """Return the image's random numbers for one purpose."""
        words = f'{purpose}{self.split}'.encode()
        return np.random.default_rng([self.settings.seed, self.index, *words])


def plan_split(split: str, settings: GlyphSettings) -> list[ImagePlan]:
    """Distribute the glyphs of ``train`` or ``val`` among its images.

    Every class goes to the images with the fewest glyphs so far, ties broken
    at random, so that all images have about equally many. One glyph in eight
    is followed by a second one of its class. In ``val`` each class is in
    ``VAL_IMAGES_PER_CLASS`` images.
    """
    if split == 'train':
        num_images = settings.num_images
        image_count = class_image_count(settings)
    else:
        image_count = np.full(settings.num_classes, VAL_IMAGES_PER_CLASS)
        num_images = max(
            image_count.sum() // GLYPHS_PER_IMAGE, VAL_IMAGES_PER_CLASS
        )
    rng = np.random.default_rng([settings.seed, *split.encode()])
    num_glyphs = np.zeros(num_images)
    labels: list[list[int]] = [[] for _ in range(num_images)]
    for label, count in enumerate(image_count):
        order = np.lexsort((rng.random(num_images), num_glyphs))[:count]
        for index in order:
            copies = 1 + int(rng.random() < 1 / 8)
            labels[index] += [label] * copies
            num_glyphs[index] += copies
    return [
        ImagePlan(settings, split, i, tuple(rng.permutation(own).tolist()))
        for i, own in enumerate(labels)
    ]


def negative_category_ids(plan: ImagePlan, share: float | None) -> list[int]:
    """Draw ``neg_category_ids`` from the classes that an image lacks.

    ``share`` is ``checked_share`` of `GlyphSettings`.
    """
    C = plan.settings.num_classes
    absent = np.setdiff1d(range(C), plan.labels)
    num_present = C - len(absent)
    num_negative = (
        len(absent) // 3
        if share is None
        else max(round(share * C) - num_present, 0)
    )
    rng = plan.rng('negative ')
    negative = rng.choice(absent, num_negative, replace=False)
    return sorted((negative + 1).tolist())


def build_image(plan: ImagePlan) -> tuple[bytes, dict, list[dict]]:
    """Draw, encode and annotate one image.

    One image in twenty gets a further glyph without annotation, of a class
    in ``not_exhaustive_category_ids``.

    Returns:
        tuple[bytes, dict, list[dict]]: The JPEG file; its LVIS image entry;
        its LVIS annotations, without ids.
    """
    size = plan.settings.image_size
    characters = class_characters(plan.settings)
    labels = plan.labels
    rng = plan.rng()
    is_hiding = labels and rng.random() < 0.05
    hidden = [int(rng.choice(labels))] if is_hiding else []
    drawn = [characters[label] for label in (*labels, *hidden)]
    image, masks = draw_image(rng, drawn, size, plan.settings.fonts)
    _, jpeg = cv2.imencode(
        '.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]
    )
    name = f'{plan.split}/{plan.index:06d}.jpg'
    entry = dict(
        id=plan.index + 1,
        file_name=name,
        coco_url=name,
        width=size,
        height=size,
        neg_category_ids=negative_category_ids(
            plan, plan.settings.checked_share
        ),
        not_exhaustive_category_ids=[label + 1 for label in hidden],
    )
    annotations = [
        dict(image_id=entry['id'], category_id=label + 1, iscrowd=0)
        | annotate(mask)
        for label, mask in zip(labels, masks)
    ]
    return jpeg.tobytes(), entry, annotations


def build_categories(train: list[ImagePlan]) -> list[dict]:
    """Build the LVIS categories, with the counts of the training images."""
    characters = class_characters(train[0].settings)
    C = len(characters)
    instances = [label for plan in train for label in plan.labels]
    in_images = [label for plan in train for label in set(plan.labels)]
    statistics = ClassStatistics(
        tuple(map(class_name, characters)),
        np.bincount(in_images, minlength=C),
        np.bincount(instances, minlength=C),
        num_images=len(train),
        num_annotated_images=sum(bool(plan.labels) for plan in train),
    )
    groups = statistics.frequency_group()
    counts = statistics.to_dict()['classes']
    return [
        dict(
            id=label,
            name=name,
            synonyms=[name],
            synset=f'{name}.n.01',
            **{'def': f'the character U+{ord(character):04X}'},
            frequency=group[0],
        )
        | count
        for label, (name, character, group, count) in enumerate(
            zip(statistics.class_names, characters, groups, counts), 1
        )
    ]


def write_split(
    root: Path, plans: list[ImagePlan], categories: list[dict], processes: int
) -> None:
    """Write the images and the annotation file of a split to a folder."""
    split = plans[0].split
    (root / 'images' / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    context = get_context('fork')
    end_with = partial(end_with_parent, os.getpid())
    with ProcessPoolExecutor(processes, context, end_with) as pool:
        built = (
            map(build_image, plans)
            if processes == 1
            else pool.map(build_image, plans, chunksize=16)
        )
        for jpeg, entry, own in track(built, f'glyphs {split}', len(plans)):
            (root / 'images' / entry['file_name']).write_bytes(jpeg)
            images.append(entry)
            for number, annotation in enumerate(own, len(annotations) + 1):
                annotations.append(dict(id=number, **annotation))
    content = dict(
        info=dict(description='glyphs', version='v1'),
        licenses=[],
        images=images,
        annotations=annotations,
        categories=categories,
    )
    write_annotations(root, split, content)
    if split == 'val':
        for share in plans[0].settings.val_checked_shares:
            for plan, image in zip(plans, images, strict=True):
                image['neg_category_ids'] = negative_category_ids(plan, share)
            write_annotations(root, f'val_checked_{share}', content)


def write_annotations(root: Path, name: str, content: dict) -> None:
    """Write an annotation file of a split."""
    path = root / 'annotations' / f'{name}.json'
    path.write_text(json.dumps(content, separators=(',', ':')))


def manifest_text(settings: GlyphSettings) -> str:
    """Return the identity of a dataset: settings, generator and fonts."""
    code = hashlib.sha256()
    own = sorted(Path(__file__).parent.glob('*.py'))
    for path in (*own, *font_files(settings.fonts)):
        code.update(path.read_bytes())
    versions = dict(
        generator=code.hexdigest(), matplotlib=matplotlib.__version__
    )
    return json.dumps(asdict(settings) | versions, indent=2)


@contextmanager
def _write_errors(root: Path) -> Iterator[None]:
    """Convert a failure to write to a one-line error."""
    try:
        yield
    except OSError as error:
        raise LongTailError(
            f'{root}: cannot be written ({error.strerror}); give another --out'
        ) from None


def make_glyphs(
    root: str | Path, settings: GlyphSettings, num_processes: int | None = None
) -> bool:
    """Write the dataset to a folder, unless the folder has it already.

    The write is atomic: a temporary folder beside ``root`` is renamed at the
    end. A dataset with other settings, or of other code, is replaced.

    The folder gets ``annotations/train.json``, ``annotations/val.json``,
    ``annotations/val_checked_<share>.json`` per ``val_checked_shares``,
    ``images/train`` and ``images/val``. By default one process per core
    draws. The result is False if the dataset was there.

    Raises:
        LongTailError: If ``root`` contains other files, or cannot be written.
    """
    root = Path(root).absolute()
    manifest = root / MANIFEST
    if manifest.is_file():
        if manifest.read_text() == manifest_text(settings):
            return False
    else:
        check(
            not root.exists() or (root.is_dir() and not any(root.iterdir())),
            f'{root}: expected a glyphs dataset, an empty folder or nothing, '
            'found other files; give another --out',
        )
    cv2.setNumThreads(0)
    num_processes = num_processes or len(os.sched_getaffinity(0))
    with _write_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(
            prefix=f'.{root.name}-', dir=root.parent
        )
    with folder, _write_errors(root):
        unfinished = Path(folder.name, root.name)
        train, val = (plan_split(split, settings) for split in SPLITS)
        for plans in (train, val):
            categories = build_categories(train)
            write_split(unfinished, plans, categories, num_processes)
        (unfinished / MANIFEST).write_text(manifest_text(settings))
        if root.exists():
            shutil.rmtree(root)
        unfinished.rename(root)
    return True
