"""Counts of training sets of several kinds, even and long-tailed ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.imbalance import Balance
from mmdet_longtail.testing.glyphs import GlyphSettings, plan_split

SHARED_DATA = Path(__file__).parents[3] / 'shared' / 'data'
needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason='the data beside the checkout is absent'
)

# The trainval objects and images of VOC2012, from its web page.
VOC_OBJECTS = np.fromstring(
    '954 790 1221 999 1482 637 2364 1227 2906 702 '
    '747 1541 750 751 10129 1099 994 786 656 826',
    int,
    sep=' ',
)
VOC_IMAGES = np.fromstring(
    '670 552 765 508 706 421 1161 1080 1119 303 '
    '538 1286 482 526 4087 527 325 507 544 575',
    int,
    sep=' ',
)


def statistics_of(instance_count, image_count=None, num_images=None):
    """Statistics of given counts; by default one box per image."""
    if image_count is None:
        image_count = instance_count
    total = int(np.sum(image_count))
    num_images = num_images or max(total, 1)
    return ClassStatistics(
        tuple(f'class {i}' for i in range(len(image_count))),
        image_count,
        instance_count,
        num_images,
        min(total, num_images),
    )


def even(num_classes, count):
    """Arguments of `statistics_of` for equal counts."""
    return ([count] * num_classes,)


SETS = {
    'three even classes': (([902, 1045, 3150],), Balance.BALANCED),
    'one class': (([50],), Balance.BALANCED),
    'one of two classes has no box': (([50, 0],), Balance.BALANCED),
    'no box': (([0, 0, 0],), Balance.BALANCED),
    'tiny': (([1, 2, 3, 4],), Balance.BALANCED),
    'many rare classes': (([1, 2, 3, 4, 5] * 20,), Balance.BALANCED),
    'VOC2012': ((VOC_OBJECTS, VOC_IMAGES, 11540), Balance.BALANCED),
    'two uneven classes': (([1000, 10],), Balance.IMBALANCED),
    'one of many is rare': (([500] * 20 + [5],), Balance.IMBALANCED),
    'uneven images only': (
        ([100] * 9 + [2000], [100] * 9 + [4]),
        Balance.IMBALANCED,
    ),
    'geometric': (([2**i for i in range(12)],), Balance.LONG_TAILED),
}
"""Arguments of `statistics_of`, and the balance, by a name."""


def counted(name):
    """Statistics of a large vocabulary from its published counts."""
    paths = {
        'lvis_v0.5': 'lvis/lvis_v0.5_train_counts.json',
        'lvis_v1': 'lvis/lvis_v1_train_counts.json',
        'v3det': 'v3det_train_counts.json',
    }
    content = json.loads((SHARED_DATA / paths[name]).read_text())
    num_images = content.get('num_images', 183354)
    return statistics_of(
        content['instance_count'], content['image_count'], num_images
    )


def glyphs():
    """Statistics of the generated glyphs, as they are by default."""
    plans = plan_split('train', GlyphSettings())
    num_classes = plans[0].settings.num_classes
    image_count = np.zeros(num_classes, int)
    instance_count = np.zeros(num_classes, int)
    for plan in plans:
        image_count[list({*plan.labels})] += 1
        np.add.at(instance_count, list(plan.labels), 1)
    return statistics_of(instance_count, image_count, len(plans))
