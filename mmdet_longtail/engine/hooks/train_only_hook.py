"""Freeze a detector except for the named parts."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmdet_longtail.errors import check
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.models.utils.frozen_losses import skip_frozen_losses


@HOOKS.register_module()
class TrainOnlyHook(Hook):
    """Freeze all parameters except those of the named parts.

    Frozen layers keep their normalisation statistics, and no graph is built
    for them. Losses without a trainable parameter, such as those of the RPN,
    the boxes and the masks when ``fc_cls`` trains, are not computed
    (:func:`skip_frozen_losses`).

    Args:
        trainable (Sequence[str]): Names of modules or parameters, with ``*``
            for any text, such as ``roi_head.bbox_head.fc_cls`` or, for the
            stages of a cascade, ``roi_head.bbox_head.*.fc_cls``.

    Raises:
        LongTailError: If there is no name, or one matches no parameter.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the model

    def __init__(self, trainable: Sequence[str]) -> None:
        check(
            trainable and not isinstance(trainable, str),
            f'TrainOnlyHook: trainable is {trainable!r}, expected a list of '
            "names, such as ['roi_head.bbox_head.fc_cls']",
        )
        self.trainable = trainable
        self.frozen_norms: list[nn.Module] = []

    def before_run(self, runner: Runner) -> None:
        """Freeze, and wrap the model again for several ranks."""
        model = unwrapped(runner.model)
        parameters = dict(model.named_parameters())
        trained: set[str] = set()
        for pattern in self.trainable:
            names = matching_names(parameters, pattern)
            check(
                names,
                f'TrainOnlyHook: trainable={pattern!r} matches no parameter; '
                f'names look like {list(parameters)[-1].rpartition(".")[0]!r}',
            )
            trained.update(names)
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in trained)
        self.frozen_norms = [
            module
            for module in model.modules()
            if isinstance(module, _NormBase)
            and not any(p.requires_grad for p in module.parameters())
        ]
        sizes = {name: p.numel() for name, p in parameters.items()}
        runner.logger.info(
            f'Training {sum(sizes[name] for name in trained)} of '
            f'{sum(sizes.values())} parameters: {", ".join(sorted(trained))}'
        )
        skipped = skip_frozen_losses(model, trained)
        if skipped:
            runner.logger.info(
                'Losses without a trainable parameter are not computed: '
                f'{", ".join(skipped)}'
            )
        if is_model_wrapper(runner.model):
            runner.model = runner.wrap_model(
                runner.cfg.get('model_wrapper_cfg'), model
            )

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Keep frozen layers in eval mode; each epoch starts with train()."""
        for module in self.frozen_norms:
            module.eval()


def matching_names(names: Iterable[str], pattern: str) -> list[str]:
    """Return the parameters that a name in ``trainable`` stands for."""
    of_module = f'{pattern}.*'
    return [
        name
        for name in names
        if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, of_module)
    ]
