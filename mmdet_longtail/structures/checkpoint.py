"""Checkpoints of mmdet 1.x to 3.x, read and written in one place."""

from __future__ import annotations

import copy
import functools
import io
import os
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import write_atomic

CLASS_STATISTICS_KEY = 'class_statistics'


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights of a detector and the records that a training keeps with them.

    Args:
        weights (dict[str, Tensor]): Parameters and buffers by name, without
            DDP's prefix ``module.``. The weights are the averaged ones where
            the training averaged: EMAHook saves the average as
            ``state_dict`` and the trained weights as ``ema_state_dict``.
        meta (Mapping): The checkpoint's ``meta``: config, dataset_meta, ...
        class_statistics (ClassStatistics, optional): Counts of the training
            set.
        source (str): Path or owner, for messages.
    """

    weights: MutableMapping[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)
    class_statistics: ClassStatistics | None = None
    source: str = 'the checkpoint'

    @classmethod
    def load(cls, path: str | Path) -> Checkpoint:
        """Load a checkpoint file onto the CPU, without printing.

        Args:
            path (str | Path): Local file, or an address such as ``https://``.

        Raises:
            LongTailError: If the file is missing, broken, or has no weights.
        """
        path = str(path)
        is_address = '://' in path
        if not is_address and not os.path.isfile(path):
            raise LongTailError(f'{path}: no such checkpoint; check the path')
        try:
            with quiet():
                content = CheckpointLoader.load_checkpoint(path, 'cpu')
        except Exception as error:
            way_out = (
                'check the address' if is_address else 'is the file complete?'
            )
            raise LongTailError(
                f'{path}: not a checkpoint that can be read '
                f'({type(error).__name__}); {way_out}'
            ) from error
        weights = content
        if isinstance(content, Mapping):
            weights = content.get('state_dict', content)
        if not isinstance(weights, Mapping) or not any(
            isinstance(value, Tensor) for value in weights.values()
        ):
            raise LongTailError(
                f'{path}: not a checkpoint of a model, it holds no weights'
            )
        return cls.of(content, path)

    @classmethod
    def of(
        cls, content: MutableMapping[str, Any], source: str = 'the checkpoint'
    ) -> Checkpoint:
        """Wrap the content of a checkpoint, such as a hook receives.

        ``weights`` is the dict of the content, so that a change of one is a
        change of the other. The prefix ``module.`` is removed in place.

        Args:
            content (MutableMapping): The checkpoint, or its weights alone.
            source (str): Path or owner, for messages.

        Raises:
            LongTailError: If its class statistics are broken.
        """
        weights = content.get('state_dict', content)
        if any(name.startswith('module.') for name in weights):
            renamed = {
                name.removeprefix('module.'): value
                for name, value in weights.items()
            }
            weights.clear()
            weights.update(renamed)
        statistics = content.get(CLASS_STATISTICS_KEY)
        try:
            if statistics is not None:
                statistics = ClassStatistics.from_dict(statistics)
        except LongTailError as error:
            raise LongTailError(f'{source}: {error}') from None
        return cls(weights, content.get('meta') or {}, statistics, source)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in label order; None where none are recorded."""
        recorded = self.meta.get('dataset_meta') or {}
        for names in (
            recorded.get('classes'),
            recorded.get('CLASSES'),
            self.meta.get('CLASSES'),  # mmdet 2.x
        ):
            if names is not None:
                return (names,) if isinstance(names, str) else tuple(names)
        return None

    @functools.cached_property
    def config(self) -> Config | None:
        """The config of the training; None where none is recorded.

        Its custom imports are not imported: see `require_config`.

        Raises:
            LongTailError: If the text is not a config.
        """
        text = self.meta.get('cfg') or self.meta.get('config')
        if not isinstance(text, str):
            return None
        first_line, _, rest = text.partition('\n')
        if first_line.endswith('.py'):  # the file name, as in mmdet 1.x
            text = rest
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'config.py')
            path.write_text(text, encoding='utf-8')
            try:
                return Config.fromfile(path, import_custom_modules=False)
            except Exception as error:  # of any kind: it is a user's program
                raise LongTailError(
                    f'{self.source}: the config that it carries cannot be '
                    f'read ({type(error).__name__}: {one_line(error)})'
                ) from error

    def require_config(
        self, way_out: str = 'take a checkpoint that training wrote'
    ) -> Config:
        """Return a copy of the config, with its custom imports imported.

        Args:
            way_out (str): Advice for the message.

        Raises:
            LongTailError: If there is none, or it cannot be read.
        """
        if self.config is None:
            raise LongTailError(
                f'{self.source}: carries no config (meta.cfg); {way_out}'
            )
        try:
            import_modules_from_strings(
                **self.config.get('custom_imports') or {'imports': []}
            )
        except ImportError as error:
            raise LongTailError(
                f'{self.source}: the config that it carries imports what is '
                f'not installed ({error})'
            ) from error
        return copy.deepcopy(self.config)

    def require_class_statistics(self) -> ClassStatistics:
        """Return the class statistics.

        Raises:
            LongTailError: If there are none.
        """
        if self.class_statistics is None:
            raise LongTailError(
                f'{self.source}: carries no class statistics; train with '
                "default_hooks=dict(class_statistics=dict(type='"
                "ClassStatisticsHook'))"
            )
        return self.class_statistics

    def check_classes(self, names: Sequence[str] | None, owner: str) -> None:
        """Compare the class names, where both are known.

        Args:
            names (Sequence[str], optional): Class names in label order.
            owner (str): What has these names, in words.

        Raises:
            LongTailError: Naming the first class that differs.
        """
        if names is not None and self.classes is not None:
            check_same_classes(names, self.classes, owner, self.source)

    def check_weights(self, model: nn.Module) -> None:
        """Compare names and shapes of the weights with those of a model.

        Args:
            model (nn.Module): A detector, not wrapped.

        Raises:
            LongTailError: If a parameter is missing, or has another shape.
        """
        advice = 'is it a checkpoint of this config?'
        parameters = dict(model.named_parameters())
        missing = [name for name in parameters if name not in self.weights]
        if missing:
            raise LongTailError(
                f'{self.source}: lacks {len(missing)} weights of the model, '
                f'such as {missing[0]}; {advice}'
            )
        for name, parameter in parameters.items():
            found, expected = self.weights[name].shape, parameter.shape
            if found != expected:
                raise LongTailError(
                    f'{self.source}: {name} is {tuple(found)}, but '
                    f'{tuple(expected)} in the model; {advice}'
                )

    def load_into(self, model: nn.Module) -> None:
        """Load the weights into a model; further weights are left out.

        Args:
            model (nn.Module): A detector, not wrapped.

        Raises:
            LongTailError: If the weights do not fit the model.
        """
        self.check_weights(model)
        try:
            model.load_state_dict(self.weights, strict=False)
        except RuntimeError as error:  # a buffer of another shape
            raise LongTailError(
                f'{self.source}: does not fit the model of the config '
                f'({one_line(error)})'
            ) from None

    def save(self, path: str | Path) -> None:
        """Write weights, meta and class statistics atomically.

        Args:
            path (str | Path): File to write; its folder is made if missing.

        Raises:
            LongTailError: If the file cannot be written.
        """
        content: dict[str, Any] = {
            'meta': dict(self.meta),
            'state_dict': {
                name: value.cpu() for name, value in self.weights.items()
            },
        }
        if self.class_statistics is not None:
            content[CLASS_STATISTICS_KEY] = self.class_statistics.to_dict()
        file = io.BytesIO()
        torch.save(content, file)
        write_atomic(path, file.getvalue())
