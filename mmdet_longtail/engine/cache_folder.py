"""Folders of cached features: their names, and how they come to be."""

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.runner import Runner
from torch import nn

from mmdet_longtail.models.utils.bbox_heads import classifier_heads

# Keys of a bbox head that do not change its features.
OF_THE_CLASSIFIER = ('type', 'loss_cls', 'loss_bbox', 'cls_predictor_cfg')


def settings_of_features(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a model's config that features depend on.

    The frozen weights, which are hashed too, say what the layers are.
    """
    settings = copy.deepcopy(dict(model))
    settings.get('test_cfg', {}).pop('rcnn', None)
    roi_head = settings['roi_head']
    roi_head.pop('type')
    heads = roi_head['bbox_head']
    for head in heads if isinstance(heads, list) else [heads]:
        for key in OF_THE_CLASSIFIER:
            head.pop(key, None)
    return settings


def digest_features(
    model: nn.Module, datasets: list[Any], settings: Mapping[str, Any]
) -> str:
    """Hash the frozen weights, the data and the settings."""
    text = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode())
    own = tuple(
        f'{name}.{part}'
        for name in classifier_heads(model)
        for part in ('fc_cls.', 'loss_')
    )
    for name, value in model.state_dict().items():
        if not name.startswith(own):
            digest.update(f'{name} {tuple(value.shape)}'.encode())
            flat = value.cpu().contiguous().reshape(-1)
            digest.update(flat.numpy().tobytes())
    for dataset in datasets:
        packed = getattr(dataset, 'data_bytes', b'')  # of BaseDataset
        digest.update(packed)
        if not len(packed):
            digest.update(repr(dataset.data_list).encode())
    return digest.hexdigest()[:16]


@contextmanager
def written_once(
    folder: Path, runner: Runner, while_waiting: Callable[[], Any]
) -> Iterator[Path | None]:
    """Lock a folder, and yield where to write it if it does not exist.

    While another run writes it, ``while_waiting`` is called every second on
    each rank. The folder gets its name when all ranks have written. What a
    killed run has left is removed.
    """
    unfinished = Path(f'{folder}.tmp')
    with ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f'{folder}.lock')
        if not _acquire(lock, 0):
            runner.logger.info(f'Another run writes {folder}; waiting')
            while not _acquire(lock, 1):
                while_waiting()
        if is_main_process():
            stack.callback(lock.release)
            shutil.rmtree(unfinished, ignore_errors=True)
            if not folder.exists():
                unfinished.mkdir()
        is_missing = [not folder.exists()]
        broadcast_object_list(is_missing)
        if not is_missing[0]:
            runner.logger.info(f'Features are read from {folder}')
            yield None
            return
        runner.logger.info(f'Features are written to {folder}')
        if is_main_process():
            stack.callback(shutil.rmtree, unfinished, ignore_errors=True)
        yield unfinished
        barrier()
        if is_main_process():
            os.replace(unfinished, folder)
        barrier()


def _acquire(lock: FileLock, seconds: float) -> bool:
    """Let rank 0 acquire a lock, and return whether it has; a collective.

    A longer wait would end by the timeout of the other ranks' collective.
    """
    has_acquired = [True]
    if is_main_process():
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            has_acquired = [False]
    broadcast_object_list(has_acquired)
    return has_acquired[0]
