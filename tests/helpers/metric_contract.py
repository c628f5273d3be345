"""What the contract suite needs of each metric.

A metric that is registered later adds its entry to `ENTRIES`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import open_images
from detection_sets import (
    as_data_samples,
    federated_dataset,
    perturbed,
    statistics_of,
    write_json,
)
from mmdet.registry import METRICS

from mmdet_longtail.structures.class_statistics import ClassStatistics


@dataclass
class Entry:
    """Data of one metric.

    Args:
        config: Builds the metric, without class statistics.
        reference: Config of another metric that gives some of the same values
            under the same keys.
        samples: Detections of every image.
        dataset_meta: As a test loop sets it.
        statistics: Counts of the training set.
    """

    config: dict
    reference: dict
    samples: list[dict]
    dataset_meta: dict
    statistics: ClassStatistics


def average_precision(name, folder, **arguments):
    """A metric on a COCO or LVIS file."""
    dataset = federated_dataset(18, num_images=9, num_classes=15)
    path = write_json(folder / 'val.json', dataset)
    config = dict(type=name, ann_file=path, **arguments)
    return Entry(
        config,
        dict(config, back_end='reference'),
        as_data_samples(dataset, perturbed(dataset, 18)),
        {'classes': [c['name'] for c in dataset['categories']]},
        statistics_of(dataset),
    )


def challenge(name, folder):
    """A metric on Open Images."""
    dataset = open_images.make_challenge_set(folder, num_images=9)
    samples = open_images.detect(dataset)
    for sample in samples:  # mmdet's own metric has another name for it
        for instance in sample['instances']:
            instance['is_group_of'] = instance['is_group_ofs']
    return Entry(
        dict(type=name),
        dict(type='OpenImagesMetric'),
        samples,
        dataset.metainfo,
        open_images.STATISTICS,
    )


ENTRIES: dict[str, Callable[..., Entry]] = {
    'FrequencyGroupMetric': average_precision,
    'FixedAPMetric': average_precision,
    'ProposalRecallMetric': average_precision,
    'OpenImagesGroupMetric': challenge,
}


def build(entry, statistics=True, **arguments):
    """Build the metric of an entry."""
    metric = METRICS.build(entry.config | arguments)
    metric.dataset_meta = entry.dataset_meta
    if statistics:
        metric.set_class_statistics(entry.statistics)
    return metric


def evaluate(metric, samples):
    """Evaluate copies of the samples, one batch per image."""
    for sample in copy.deepcopy(samples):
        metric.process({}, [sample])
    return metric.evaluate(len(samples))
