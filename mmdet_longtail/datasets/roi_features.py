"""Pipelines that read the RoIs of an image from a cache of features.

The cache is a folder that ``FeatureCacheHook`` wrote. Shapes: T stages of the
RoI head, U RoIs of an image whose features are kept, n RoIs that its sampler
drew or, in a test, proposals.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_longtail.structures.annotations import IMAGE_LEVEL_KEYS
from mmdet_longtail.utils.fileio import read_record
from mmdet_longtail.utils.ragged import RaggedArray

RECORD = 'cache.json'
FIELDS = ('features', 'labels', 'label_weights')


def part_prefix(folder: Path, view: int, part: int) -> Path:
    """Return the prefix of the files of a view that one rank wrote."""
    return folder / f'view{view}_part{part}'


class FeatureCache:
    """The arrays of a cache of features, memory-mapped.

    Image i of a dataset is the image i // P of the part i % P of P parts.

    Args:
        folder (Path): Folder of the cache, complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        record = read_record(folder / RECORD, 'num_parts', 'num_views')
        self.num_parts: int = record['num_parts']
        self.num_views: int = record['num_views']
        self.num_samples: int = record['num_samples']
        self.num_stages: int = record['num_stages']
        self.has_box_features: bool = record.get('has_box_features', False)
        self._arrays: dict[tuple[int, int, str], RaggedArray] = {}

    def read(
        self,
        field: str,
        image: int,
        view: int = 0,
        block: int = 0,
        num_blocks: int = 1,
    ) -> np.ndarray:
        """Read one of the blocks of a field that belong to an image."""
        position, part = divmod(image, self.num_parts)
        key = (view, part, field)
        if key not in self._arrays:
            prefix = part_prefix(self.folder, view, part)
            self._arrays[key] = RaggedArray(prefix, field)
        return self._arrays[key][position * num_blocks + block]


class _CachedPipeline:
    """Pipeline of a dataset whose image 0 is image ``start`` of a cache."""

    def __init__(self, cache: FeatureCache, start: int = 0) -> None:
        self.cache = cache
        self.start = start


class SampledRoIs(_CachedPipeline):
    """Read the RoIs of a random view and sample for training."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return features (n, F), labels (n,), label_weights (n,) by stage."""
        cache = self.cache
        image = self.start + results['sample_idx']
        variant, num_variants = 0, cache.num_views * cache.num_samples
        if num_variants > 1:
            variant = np.random.randint(num_variants)  # noqa: NPY002, as mmdet
        view, sample = divmod(variant, cache.num_samples)
        T = cache.num_stages
        packed: dict[str, Any] = {field: [] for field in FIELDS}
        for stage in range(T):
            block = stage * cache.num_samples + sample
            num_blocks = T * cache.num_samples
            rows = cache.read('rows', image, view, block, num_blocks)
            for field in FIELDS:
                of_stage = cache.read(field, image, view, stage, T)
                packed[field].append(torch.from_numpy(of_stage[rows]))
        metainfo = {k: results[k] for k in ('img_id', 'img_path')}
        packed['data_samples'] = sample = DetDataSample(metainfo=metainfo)
        if IMAGE_LEVEL_KEYS[0] in results:  # its objects are checked
            sample.gt_instances = InstanceData(labels=torch.empty(0))
        return packed


class Proposals(_CachedPipeline):
    """Read the proposals of an image for a test."""

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Return features (n, F) by stage, boxes (n, 4), box_features."""
        image = self.start + results['sample_idx']
        cache, T = self.cache, self.cache.num_stages
        text = cache.read('metainfo', image)
        stages = (cache.read('features', image, 0, s, T) for s in range(T))
        packed: dict[str, Any] = dict(
            features=list(map(_tensor, stages)),
            boxes=_tensor(cache.read('boxes', image)),
            data_samples=DetDataSample(metainfo=parse_metainfo(text)),
        )
        if cache.has_box_features:
            box_features = cache.read('box_features', image)
            packed['box_features'] = _tensor(box_features)
        return packed


def _tensor(array: np.ndarray) -> Tensor:
    """Copy a part of a memory-mapped array."""
    return torch.from_numpy(np.array(array))


def format_metainfo(metainfo: dict[str, Any]) -> np.ndarray:
    """Encode the metainfo of an image as JSON, (bytes,) uint8."""
    text = json.dumps(metainfo, default=lambda value: value.tolist())
    return np.frombuffer(text.encode(), np.uint8)


def parse_metainfo(text: np.ndarray) -> dict[str, Any]:
    """Decode `format_metainfo`; sizes are tuples, as in mmdet."""
    return {
        key: tuple(value) if key.endswith(('shape', 'factor')) else value
        for key, value in json.loads(text.tobytes()).items()
    }
