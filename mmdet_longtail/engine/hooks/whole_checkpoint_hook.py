"""Checkpoints that a kill at any moment leaves whole."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import write_whole


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's hook, which writes a checkpoint before it deletes one.

    Checkpoints and the file ``last_checkpoint`` are written beside and
    renamed, so ``last_checkpoint`` always names a whole checkpoint. Arguments
    are those of ``CheckpointHook``; ``backend_args`` is
    ``dict(backend='whole_file')`` unless given.

    Raises:
        LongTailError: If fewer than two checkpoints are kept, or if one
            would be saved within an optimizer step.
    """

    def __init__(
        self,
        *args: Any,
        backend_args: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            backend_args=backend_args or dict(backend='whole_file'),
            **kwargs,
        )
        self.saved_iter: int | None = None
        if self.max_keep_ckpts in (0, 1):
            raise LongTailError(
                'default_hooks.checkpoint.max_keep_ckpts is '
                f'{self.max_keep_ckpts}, expected 2 or more, or -1 for all: '
                'the last one may be the one that a kill interrupts'
            )

    def before_train(self, runner: Runner) -> None:
        """Find out what is kept, and remove what a kill left unfinished."""
        super().before_train(runner)
        self._check_steps(runner)
        # Without the limit of mmengine's: there is one more for a moment.
        self.kept = deque(getattr(self, 'keep_ckpt_ids', ()))
        if is_main_process():
            for path in Path(self.out_dir).glob('*.tmp'):
                path.unlink()

    def is_optimizer_step(self, runner: Runner) -> bool:
        """Say if the last iteration has changed the weights.

        Between two steps of a run that accumulates gradients there are
        gradients, which no checkpoint holds.
        """
        return _num_accumulated(runner) == 1 or (
            runner.optim_wrapper.should_update()
        )

    def save_now(self, runner: Runner) -> None:
        """Save after a training iteration, unless it is saved already.

        Args:
            runner (Runner): In after_train_iter, on an optimizer step.
        """
        iteration = runner.iter + 1
        if self.saved_iter != iteration:
            runner.logger.info(f'Saving checkpoint at {iteration} iterations')
            self._save_checkpoint_with_step(
                runner,
                f'{runner.epoch}_iter_{iteration}'
                if self.by_epoch
                else iteration,
                dict(epoch=runner.epoch, iter=iteration),
            )

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int | str, meta: dict[str, int]
    ) -> None:
        if self.max_keep_ckpts > 0:
            if step not in self.kept:
                self.kept.append(step)
            # A run that goes on from here deletes those that are too many.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.kept))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self.saved_iter = meta['iter']
        if is_main_process():
            write_whole(
                Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt
            )
        while len(self.kept) > self.max_keep_ckpts > 0:
            path = self.file_backend.join_path(
                self.out_dir, self.filename_tmpl.format(self.kept.popleft())
            )
            if is_main_process() and self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def _check_steps(self, runner: Runner) -> None:
        num_accumulated = _num_accumulated(runner)
        if self.by_epoch:
            what, iterations = 'an epoch has', len(runner.train_dataloader)
        else:
            what, iterations = 'an interval has', self.interval
        if iterations > 0 and iterations % num_accumulated != 0:
            raise LongTailError(
                f'{what} {iterations} iterations, which is no multiple of '
                f'optim_wrapper.accumulative_counts={num_accumulated}, and '
                'no checkpoint holds gradients; save by iterations, '
                'default_hooks.checkpoint=dict(by_epoch=False, '
                f'interval={num_accumulated * 100})'
            )


def _num_accumulated(runner: Runner) -> int:
    """Iterations of an optimizer step."""
    return getattr(runner.optim_wrapper, '_accumulative_counts', 1)
