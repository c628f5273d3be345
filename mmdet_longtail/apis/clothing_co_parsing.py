"""Conversion of Clothing Co-Parsing to a detection dataset in LVIS format.

Yang, Luo and Lin, Clothing Co-Parsing by Joint Image Segmentation and
Labeling, CVPR 2014.
"""

import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils
from rich.progress import track
from scipy import ndimage
from scipy.io import loadmat

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import check_writable, write_atomic

URL = 'https://github.com/bearpaw/clothing-co-parsing'
SCALE = 0.6
MIN_AREA = 36  # of an object, in pixels after scaling
VAL_FRACTION = 0.2
JPEG_QUALITY = 85
EIGHT_NEIGHBORS = np.ones((3, 3))


def convert_clothing_co_parsing(clone: str | Path, out: str | Path) -> None:
    """Write the photographs with pixel labels as a dataset in LVIS format.

    Photographs and labels are scaled by ``SCALE``. An object is a connected
    component of the pixels of a label. Labels without an object are dropped,
    and each class that an image does not contain is verified absent.

    Args:
        clone (str | Path): Clone of the repository.
        out (str | Path): Folder to write: ``images``,
            ``annotations/train.json``, ``annotations/val.json`` and the
            licence.

    Raises:
        LongTailError: If a file of the clone is missing or broken, or one of
            the dataset cannot be written.
    """
    clone, out = Path(clone), Path(out)
    check_writable(out / 'annotations' / 'train.json')
    label_names = [str(n) for n in _read_matrix(clone, 'label_list').ravel()]
    paths = sorted((clone / 'annotations' / 'pixel-level').glob('*.mat'))
    check(
        paths,
        f'{clone}: has no annotations/pixel-level/*.mat, expected a clone of '
        f'{URL}',
    )
    images, objects = [], {}
    for path in track(paths, f'{len(paths)} photographs'):
        image_id = int(path.stem)
        labels, jpeg = _read_photograph(clone, path.stem)
        check(
            labels.max() < len(label_names),
            f'{path}: has label {labels.max()}, but label_list.mat names 0 '
            f'to {len(label_names) - 1}',
        )
        height, width = labels.shape
        name = f'{path.stem}.jpg'
        images.append(
            dict(id=image_id, file_name=name, height=height, width=width)
        )
        objects[image_id] = [
            (label, encode_object(mask))
            for label, mask in find_objects(labels)
        ]
        write_atomic(out / 'images' / name, jpeg)
    if (clone / 'LICENSE').is_file():
        shutil.copy(clone / 'LICENSE', out)
    image_labels = {i: {label for label, _ in o} for i, o in objects.items()}
    val = draw_validation_images(image_labels)
    kept = sorted(set().union(*image_labels.values()))
    category_ids = {label: c for c, label in enumerate(kept, 1)}
    train = [o for i, o in objects.items() if i not in val]
    categories = _build_categories([label_names[x] for x in kept], kept, train)
    for split in ('train', 'val'):
        part = [i for i in images if (i['id'] in val) == (split == 'val')]
        content = _build_split(part, objects, category_ids, categories)
        path = out / 'annotations' / f'{split}.json'
        write_atomic(path, json.dumps(content))
        print(
            f'{path}: {len(part)} images, {len(content["annotations"])} '
            f'objects of {len(kept)} classes'
        )


def find_objects(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each object's label and mask (H, W), by label, then by scan line.

    An object is a connected component (eight neighbors) of at least
    ``MIN_AREA`` of the pixels of one label. 0 is background.
    """
    for label in np.unique(labels[labels > 0]).tolist():
        components, number = ndimage.label(labels == label, EIGHT_NEIGHBORS)
        for k in range(1, number + 1):
            mask = components == k
            if mask.sum() >= MIN_AREA:
                yield label, mask


def encode_object(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask (H, W) as the fields of a COCO annotation."""
    rle = mask_utils.encode(np.asfortranarray(mask, np.uint8))
    counts = rle['counts'].decode()
    return dict(
        bbox=mask_utils.toBbox(rle).astype(int).tolist(),
        area=int(mask.sum()),
        segmentation=dict(size=list(mask.shape), counts=counts),
        iscrowd=0,
    )


def draw_validation_images(image_labels: Mapping[int, set[int]]) -> set[int]:
    """Draw a fifth of the images of each class, the rarest class first.

    Images that a rarer class has drawn count for the others. Classes of one
    or two images may stay without a validation image.

    Args:
        image_labels (Mapping[int, set[int]]): Labels by image.
    """
    order = sorted(image_labels)
    random.Random(0).shuffle(order)
    image_count = Counter(x for own in image_labels.values() for x in own)
    drawn: set[int] = set()
    for label in sorted(image_count, key=lambda x: (image_count[x], x)):
        images = [i for i in order if label in image_labels[i]]
        missing = round(VAL_FRACTION * len(images)) - len(drawn & {*images})
        others = [i for i in images if i not in drawn]
        drawn.update(others[: max(missing, 0)])
    return drawn


def _read_matrix(clone: Path, name: str) -> np.ndarray:
    """Read the variable of a MATLAB file that has one."""
    path = clone / f'{name}.mat'
    check(path.is_file(), f'{path}: no such file, expected a clone of {URL}')
    try:
        content = loadmat(path, squeeze_me=True)
        (matrix,) = (v for k, v in content.items() if not k.startswith('__'))
        return np.atleast_1d(matrix)
    except Exception as error:  # of any kind in a broken file
        raise LongTailError(
            f'{path}: cannot be read as a MATLAB file of one variable '
            f'({type(error).__name__}); is the clone complete?'
        ) from error


def _read_photograph(clone: Path, name: str) -> tuple[np.ndarray, bytes]:
    """Read pixel labels (H, W) and the JPEG file, both scaled."""
    matrix = _read_matrix(clone, f'annotations/pixel-level/{name}')
    labels = Image.fromarray(matrix.astype(np.uint8))
    path = clone / 'photos' / f'{name}.jpg'
    try:
        photograph = Image.open(path).convert('RGB')
    except OSError as error:
        raise LongTailError(
            f'{path}: cannot be read ({type(error).__name__}); is the clone '
            'complete?'
        ) from error
    check(
        photograph.size == labels.size,
        f'{path}: is {photograph.size} pixels wide and high, but its labels '
        f'are {labels.size}',
    )
    width, height = labels.size
    size = round(SCALE * width), round(SCALE * height)
    jpeg = io.BytesIO()
    photograph.resize(size).save(jpeg, 'JPEG', quality=JPEG_QUALITY)
    labels = labels.resize(size, Image.Resampling.NEAREST)
    return np.asarray(labels), jpeg.getvalue()


def _build_categories(
    names: list[str], kept: list[int], train: list[list]
) -> list[dict[str, Any]]:
    """Build the categories, with the counts of the training images."""
    in_images = Counter(x for o in train for x in {label for label, _ in o})
    instances = Counter(label for o in train for label, _ in o)
    statistics = ClassStatistics(
        tuple(names),
        np.array([in_images[label] for label in kept]),
        np.array([instances[label] for label in kept]),
        num_images=len(train),
        num_annotated_images=sum(map(bool, train)),
    )
    groups = statistics.frequency_group()
    counts = statistics.to_dict()['classes']
    return [
        dict(
            id=c,
            name=name,
            synset=name,
            synonyms=[name],
            image_count=count['image_count'],
            instance_count=count['instance_count'],
            frequency=group[0],
        )
        for c, (name, count, group) in enumerate(zip(names, counts, groups), 1)
    ]


def _build_split(
    images: list[dict],
    objects: Mapping[int, list[tuple[int, dict]]],
    category_ids: Mapping[int, int],
    categories: list[dict],
) -> dict[str, Any]:
    """Build the content of an annotation file."""
    annotations: list[dict[str, Any]] = []
    entries = []
    for image in images:
        found = objects[image['id']]
        present = {category_ids[label] for label, _ in found}
        entries.append(
            dict(
                image,
                neg_category_ids=sorted({*category_ids.values()} - present),
                not_exhaustive_category_ids=[],
            )
        )
        for label, fields in found:
            ids = dict(
                id=len(annotations) + 1,
                image_id=image['id'],
                category_id=category_ids[label],
            )
            annotations.append(ids | fields)
    description = 'Clothing Co-Parsing, pixel labels -> connected components'
    return dict(
        info=dict(description=description, url=URL),
        licenses=[],
        images=entries,
        annotations=annotations,
        categories=categories,
    )
