"""Checkpoints of mmdet 1.x to 3.x, read and written in one place."""

import copy
import functools
import io
import os
import re
import tempfile
from collections.abc import (
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from mmdet_longtail.compat import weights_only_loads
from mmdet_longtail.errors import LongTailError, check, errors_of, one_line
from mmdet_longtail.structures.carried_config import (
    are_configs_trusted,
    check_names,
    import_custom_modules,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.literal_config import parse_config
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import write_atomic

CLASS_STATISTICS_KEY = 'class_statistics'
THE_CHECKPOINT = 'the checkpoint'


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights of a detector and the records that a training keeps with them.

    Args:
        weights (MutableMapping[str, Tensor]): Parameters and buffers by name,
            without DDP's prefix ``module.``. The weights are averaged where
            the training averaged: EMAHook saves the average as ``state_dict``
            and the trained weights as ``ema_state_dict``.
        meta (Mapping): The checkpoint's ``meta``: config, dataset_meta, ...
        class_statistics (ClassStatistics, optional): Counts of the training
            set.
        source (str): Path or owner, for messages.
    """

    weights: MutableMapping[str, Tensor]
    meta: Mapping[str, Any] = field(default_factory=dict)
    class_statistics: ClassStatistics | None = None
    source: str = THE_CHECKPOINT

    @classmethod
    def load(cls, path: str | Path) -> 'Checkpoint':
        """Load a local file or an address such as ``https://`` onto the CPU.

        Nothing in the file is executed.

        Raises:
            LongTailError: If the file is missing, broken, or has no weights.
        """
        path = str(path)
        check(
            '://' in path or os.path.isfile(path),
            f'{path}: no such checkpoint; check the path',
        )
        try:
            with quiet(), weights_only_loads():
                content = CheckpointLoader.load_checkpoint(path, 'cpu')
        except Exception as error:
            named = re.search(r'(?:GLOBAL|global|class) ([\w.]+)', str(error))
            check(
                not isinstance(error, UnpicklingError) or named is None,
                f'{path}: not a checkpoint that can be read, it holds more '
                f'than weights: {named and named[1]} would have to be '
                'executed; let the program that wrote it save the weights',
            )
            raise LongTailError(
                f'{path}: not a checkpoint that can be read '
                f'({type(error).__name__}); is the file complete?'
            ) from error
        content = content if isinstance(content, MutableMapping) else {}
        weights = content.get('state_dict', content)
        check(
            isinstance(weights, Mapping)
            and any(isinstance(value, Tensor) for value in weights.values()),
            f'{path}: not a checkpoint of a model: it holds no weights under '
            f"'state_dict', but {[*content][:4]}",
        )
        return cls.of(content, path)

    @classmethod
    def of(
        cls, content: MutableMapping[str, Any], source: str = THE_CHECKPOINT
    ) -> 'Checkpoint':
        """Wrap the content of a checkpoint, such as a hook receives.

        The content is a checkpoint, or its weights alone. The weights stay
        those of the content, so that changes of one are changes of the other.
        The prefix ``module.`` is removed in place.

        Raises:
            LongTailError: If its class statistics are broken.
        """
        weights = content.get('state_dict', content)
        if any(name.startswith('module.') for name in weights):
            items = list(weights.items())
            weights.clear()
            weights.update((n.removeprefix('module.'), v) for n, v in items)
        statistics = content.get(CLASS_STATISTICS_KEY)
        if statistics is not None:
            with errors_of(source):
                statistics = ClassStatistics.from_dict(statistics)
        return cls(weights, content.get('meta') or {}, statistics, source)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in label order; None where none are recorded."""
        recorded = self.meta.get('dataset_meta') or {}
        names = recorded.get('classes') or recorded.get('CLASSES')
        names = names or self.meta.get('CLASSES')  # mmdet 2.x
        if names is None:
            return None
        return (names,) if isinstance(names, str) else tuple(names)

    @functools.cached_property
    def config(self) -> Config | None:
        """The config of the training; None where none is recorded.

        The text is not executed, unless in `trusted_configs`. Its custom
        imports are not imported: see `require_config`.

        Raises:
            LongTailError: If the text is not a config, or more than literals.
        """
        text = self.meta.get('cfg') or self.meta.get('config')
        if not isinstance(text, str):
            return None
        first_line, _, rest = text.partition('\n')
        if first_line.endswith('.py'):  # the file name, as in mmdet 1.x
            text = rest
        if are_configs_trusted():
            return self._execute(text)
        with self._errors_of_config():
            values = parse_config(text)
            try:
                return Config(values)
            except (KeyError, TypeError) as error:  # names of Config's own
                raise LongTailError(
                    f'is not a config ({one_line(error)})'
                ) from None

    def _execute(self, text: str) -> Config:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'config.py')
            path.write_text(text, encoding='utf-8')
            try:
                return Config.fromfile(path, import_custom_modules=False)
            except Exception as error:  # of any kind: it is a user's program
                raise LongTailError(
                    f'{self.source}: the config in it cannot be '
                    f'read ({type(error).__name__}: {one_line(error)})'
                ) from error

    @contextmanager
    def _errors_of_config(self) -> Iterator[None]:
        """Name the config in each LongTailError raised inside."""
        try:
            yield
        except LongTailError as error:
            raise LongTailError(
                f'{self.source}: the config in it {error}'
            ) from None

    def require_config(
        self, advice: str = 'take a checkpoint that training wrote'
    ) -> Config:
        """Return a copy of the config, with its custom imports imported.

        Raises:
            LongTailError: If there is none, with the advice, or it cannot be
                read or imported, or it names code of others.
        """
        if self.config is None:
            raise LongTailError(
                f'{self.source}: contains no config (meta.cfg); {advice}'
            )
        with self._errors_of_config():
            import_custom_modules(self.config)
            if not are_configs_trusted():
                check_names(self.config.to_dict())
        return copy.deepcopy(self.config)

    def check_classes(self, names: Sequence[str] | None, owner: str) -> None:
        """Compare an owner's class names with the recorded, where known.

        Raises:
            LongTailError: Naming the first class that differs.
        """
        if names is not None and self.classes is not None:
            check_same_classes(names, self.classes, owner, self.source)

    def check_shapes(self, expected: Iterable[tuple[str, Tensor]]) -> None:
        """Compare the shapes of weights with those of a model.

        Names that the checkpoint lacks are not compared.

        Raises:
            LongTailError: Naming the first weight of another shape.
        """
        for name, value in expected:
            found = self.weights.get(name, value).shape
            check(
                found == value.shape,
                f'{self.source}: {name} is {tuple(found)}, but '
                f'{tuple(value.shape)} in the model; is it a checkpoint of '
                'this config, with the same loss and classes?',
            )

    def check_weights(self, model: nn.Module) -> None:
        """Check that the weights fit a detector, which is not wrapped.

        Raises:
            LongTailError: If a parameter is missing, or a weight has another
                shape or is not finite.
        """
        parameters = dict(model.named_parameters())
        missing = [name for name in parameters if name not in self.weights]
        check(
            not missing,
            f'{self.source}: lacks {len(missing)} weights of the model, such '
            f'as {", ".join(missing[:1])}; is it a checkpoint of this config?',
        )
        self.check_shapes(model.state_dict().items())
        self.check_finite()

    def check_finite(self) -> None:
        """Check that no weight is infinite or NaN.

        Raises:
            LongTailError: Naming the first one, and their number.
        """
        wrong = [
            name
            for name, value in self.weights.items()
            if isinstance(value, Tensor)
            and not value.isfinite().all()
            # A loss derives its buffers, nan before it has statistics.
            and '.loss_' not in f'.{name}'
        ]
        check(
            not wrong,
            f'{self.source}: {len(wrong)} of {len(self.weights)} weights are '
            f'infinite or NaN, the first is {"".join(wrong[:1])}; the '
            'training diverged: take an earlier checkpoint, or train with a '
            'lower learning rate, clipped gradients or a longer warm-up',
        )

    def load_into(self, model: nn.Module) -> None:
        """Load the weights that a detector has, once `check_weights` passes.

        Raises:
            LongTailError: See `check_weights`.
        """
        self.check_weights(model)
        model.load_state_dict(self.weights, strict=False)

    def save(self, path: str | Path) -> None:
        """Write weights, meta and class statistics atomically, on the CPU.

        A missing folder is made.

        Raises:
            LongTailError: If the file cannot be written.
        """
        content: dict[str, Any] = {
            'meta': dict(self.meta),
            'state_dict': {k: v.cpu() for k, v in self.weights.items()},
        }
        if self.class_statistics is not None:
            content[CLASS_STATISTICS_KEY] = self.class_statistics.to_dict()
        file = io.BytesIO()
        torch.save(content, file)
        write_atomic(path, file.getvalue())
