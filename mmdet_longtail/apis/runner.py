"""What the tools share: configs and checkpoints read, and failures explained.

A mistake of the user ends in one line on stderr and exit status 1; a bug
keeps its stack trace.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.structures.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def load_config(
    path: str | Path, cfg_options: Mapping[str, Any] | None = None
) -> Config:
    """Read a config and merge overrides into it.

    Args:
        path (str | Path): The config file.
        cfg_options (Mapping, optional): Dotted keys and their values.

    Raises:
        LongTailError: If there is no such file, it cannot be read, or a key
            does not fit the config.
    """
    from mmengine.config import Config

    if not os.path.isfile(path):
        raise LongTailError(f'{path}: no such config; check the path')
    try:
        config = Config.fromfile(path)
    except Exception as error:
        raise LongTailError(
            f'{path}: not a config that can be read '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error
    try:
        config.merge_from_dict(dict(cfg_options or {}))
    except (KeyError, TypeError, IndexError) as error:
        raise LongTailError(
            f'{path}: cfg-options do not fit the config ({one_line(error)})'
        ) from error
    return config


def check_checkpoint(path: str) -> None:
    """Check that a local file is a checkpoint.

    Args:
        path (str): Path, or an address such as ``https://``, which is not
            checked.

    Raises:
        LongTailError: See `Checkpoint.load`.
    """
    from mmdet_longtail.structures import Checkpoint

    if '://' not in path:
        Checkpoint.load(path)


def last_checkpoint(work_dir: str | Path) -> Path:
    """Find the checkpoint that a training wrote last.

    Args:
        work_dir (str | Path): Its work directory, which may have moved since.

    Raises:
        LongTailError: If there is none.
    """
    pointer = Path(work_dir, 'last_checkpoint')
    if not pointer.is_file():
        raise LongTailError(
            f'{work_dir}: no training left a checkpoint here; train first, '
            'or check the path'
        )
    return Path(work_dir, Path(pointer.read_text().strip()).name)


def check_num_classes(runner: Runner, dataset: Any) -> None:
    """Compare every num_classes of the model with the classes of a dataset.

    Region proposal and semantic segmentation heads count other things and
    are left out.

    Args:
        runner (Runner): Holds the model.
        dataset (mmengine.dataset.BaseDataset): Its metainfo names the
            classes.

    Raises:
        LongTailError: Naming the first module that differs.
    """
    from mmdet_longtail.models.utils.wrappers import unwrapped

    metainfo = getattr(dataset, 'metainfo', None) or {}
    if not isinstance(metainfo, Mapping) or not metainfo.get('classes'):
        return
    num_classes = len(metainfo['classes'])
    model = unwrapped(runner.model)
    if hasattr(model, 'language_model'):
        return  # Its num_classes counts words.
    for name, module in model.named_modules():
        if name.startswith('backbone') or any(
            part in name for part in ('rpn_head', 'semantic')
        ):
            continue
        found = getattr(module, 'num_classes', None)
        if isinstance(found, int) and found != num_classes:
            raise LongTailError(
                f'model.{name}.num_classes is {found}, but the dataset has '
                f'{num_classes} classes: set num_classes={num_classes} in '
                'every head and loss of the config, or let '
                'tools/make_config.py write them'
            )


@contextmanager
def failures_explained(config: Config) -> Iterator[None]:
    """Look for the cause of a failure in the files that a config names.

    An exception inside becomes a `LongTailError` when an annotation file or
    the checkpoint is bad, a file is missing or the disk is full; else it
    passes as it is.

    Args:
        config (Config): What the runner was built from.

    Raises:
        LongTailError: If one of its files is the cause.
    """
    try:
        yield
    except LongTailError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise LongTailError(
                f'{error.filename or config.get("work_dir")}: cannot be '
                f'written ({error.strerror}); checkpoints that are there are '
                'whole'
            ) from error
        for path in annotation_files(config):
            ClassStatistics.from_annotation_file(path)
        if config.get('load_from'):
            check_checkpoint(config.load_from)
        if isinstance(error, FileNotFoundError):
            # A data loader's worker hands over its whole stack trace.
            cause = str(error).splitlines()[-1]
            raise LongTailError(
                f'{cause}; check the paths in the config'
            ) from error
        raise


def annotation_files(config: Config) -> list[str]:
    """List the COCO and LVIS files that a config's data and metrics read.

    Args:
        config (Config): The config.

    Returns:
        list[str]: Paths, each once.
    """
    from mmdet.datasets import CocoDataset, CocoPanopticDataset
    from mmdet.evaluation import CocoMetric
    from mmdet.registry import DATASETS, METRICS

    paths: dict[str, None] = {}

    def is_reader(kind: Any) -> bool:
        if isinstance(kind, str):
            kind = DATASETS.get(kind) or METRICS.get(kind)
        return (
            isinstance(kind, type)
            and issubclass(kind, CocoDataset | CocoMetric)
            and not issubclass(kind, CocoPanopticDataset)
        )

    def collect(node: Any) -> None:
        if isinstance(node, Mapping):
            if is_reader(node.get('type')):
                for key in ('ann_file', 'train_ann_file'):
                    if node.get(key):
                        root = node.get('data_root') or ''
                        paths[os.path.join(root, node[key])] = None
            node = list(node.values())
        if isinstance(node, list | tuple):
            for child in node:
                collect(child)

    for split in ('train', 'val', 'test'):
        collect(config.get(f'{split}_dataloader'))
        collect(config.get(f'{split}_evaluator'))
    return list(paths)


def check_work_dir(path: str | Path) -> None:
    """Make a work directory, and write to it.

    Args:
        path (str | Path): The directory.

    Raises:
        LongTailError: If that cannot be.
    """
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b'text')
    except OSError as error:
        raise LongTailError(
            f'{path}: the work directory cannot be written '
            f'({error.strerror}); name another one by --work-dir'
        ) from error


def build_runner(config: Config) -> Runner:
    """Build the runner that a config asks for.

    Args:
        config (Config): The config, with work_dir and launcher.
    """
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    if 'runner_type' in config:
        return RUNNERS.build(config)
    return Runner.from_cfg(config)
