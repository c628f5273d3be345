"""Reduction of the losses' online state over the ranks."""

from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.models.utils.bbox_heads import unwrapped


@HOOKS.register_module()
class OnlineStateHook(Hook):
    """Keep the online state of losses equal on all ranks.

    Losses such as `EqualizationLossV2` update their state in the forward, by
    the rows of their rank; `EqualizedFocalLoss` leaves it to this hook. After
    the iteration, the hook sums what the ranks have observed, and computes
    the state from the sum: one all-reduce for all losses, also for a rank
    without RoIs. `ClassStatisticsHook` registers this hook. A training
    without class statistics has it in its config::

        default_hooks = dict(online_state=dict(type='OnlineStateHook'))
    """

    priority = 'HIGH'  # before EMAHook copies the buffers

    def __init__(self) -> None:
        self.losses: list[OnlineState] = []
        self.starts: list[tuple[OnlineState, dict[str, Tensor]]] = []

    def before_train(self, runner: Runner) -> None:
        """Find the losses with online state."""
        model = unwrapped(runner.model)
        self.losses = [
            m for m in model.modules() if isinstance(m, OnlineState)
        ]
        for loss in self.losses:
            loss.is_reduced = True

    def before_train_iter(self, runner: Runner, *args: Any, **_: Any) -> None:
        """Keep the state before the iteration, which is equal on all ranks."""
        self.starts = []
        for loss in self.losses:
            loss.increments.zero_()
            state = loss.online_state()
            start = {name: value.clone() for name, value in state.items()}
            self.starts.append((loss, start))

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, *args: Any, **_: Any) -> None:
        """Compute the state after the iteration from the rows of all ranks."""
        starts = [
            (loss, start)
            for loss, start in self.starts
            if loss.updates_between_iterations or get_world_size() > 1
        ]
        if not starts:
            return
        increments = [loss.increments for loss, _ in starts]
        total = torch.cat([each.flatten() for each in increments])
        all_reduce(total)
        parts = total.split([each.numel() for each in increments])
        for (loss, start), part in zip(starts, parts, strict=True):
            sums = part.view_as(loss.increments)
            loss.set_online_state(loss.advance(start, *sums))
