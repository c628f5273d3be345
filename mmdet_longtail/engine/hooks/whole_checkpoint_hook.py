"""Atomic checkpoints: a kill at any moment leaves a complete one."""

from collections import deque
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmdet_longtail.errors import check
from mmdet_longtail.utils.fileio import remove_unfinished, write_atomic


@register_backend('whole_file')
class WholeFileBackend(LocalBackend):
    """Write files on the local disk atomically.

    Set ``backend_args=dict(backend='whole_file')``.

    Raises:
        LongTailError: If a file cannot be written, such as on a full disk.
            An older file of this name stays.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        write_atomic(filepath, obj)


def save_whole_files(runner: Runner) -> None:
    """Let each ``CheckpointHook`` of a runner write its files atomically.

    The config stays as it is. A hook with a backend of its own does too.
    """
    for hook in runner.hooks:
        if (
            isinstance(hook, CheckpointHook)
            and hook.backend_args is None
            and hook.file_client_args is None
            and '://' not in str(hook.out_dir)
        ):
            hook.backend_args = dict(backend='whole_file')


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """Save checkpoints atomically, and delete old ones afterwards.

    mmengine deletes the best checkpoint before it saves a better one. The
    file ``last_checkpoint`` always names a complete checkpoint. Arguments are
    those of mmengine's ``CheckpointHook``; ``backend_args`` defaults to
    ``dict(backend='whole_file')``.

    Raises:
        LongTailError: If fewer than two checkpoints are kept, or if one
            would be saved between two optimizer steps.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if kwargs.get('backend_args') is None:
            kwargs['backend_args'] = dict(backend='whole_file')
        super().__init__(*args, **kwargs)
        self.saved_iter: int | None = None
        check(
            self.max_keep_ckpts not in (0, 1),
            f'default_hooks.checkpoint.max_keep_ckpts is {self.max_keep_ckpts}'
            ', expected 2 or more, or -1 for all: a kill can interrupt the '
            'writing of the last one',
        )

    def before_train(self, runner: Runner) -> None:
        """Find the checkpoints of earlier runs, and remove unfinished files.

        Raises:
            LongTailError: If one would be saved between optimizer steps.
        """
        super().before_train(runner)
        num_accumulated = runner.optim_wrapper._accumulative_counts
        what, iterations = 'an interval', self.interval
        if self.by_epoch:
            what, iterations = 'an epoch', len(runner.train_dataloader)
        check(
            iterations <= 0 or iterations % num_accumulated == 0,
            f'{what} has {iterations} iterations, which is not a multiple of '
            f'optim_wrapper.accumulative_counts={num_accumulated}, and no '
            'checkpoint holds gradients; save by iterations, '
            'default_hooks.checkpoint=dict(by_epoch=False, '
            f'interval={num_accumulated * 100})',
        )
        # mmengine's deque has a maximum length; here one more is kept while
        # the last one is written.
        self.kept = deque(getattr(self, 'keep_ckpt_ids', ()))
        if is_main_process():
            remove_unfinished(self.out_dir)

    def save_now(self, runner: Runner) -> None:
        """Save after an optimizer step, unless the schedule has saved."""
        step = iteration = runner.iter + 1
        if self.saved_iter != iteration:
            runner.logger.info(f'Saving checkpoint at {iteration} iterations')
            if self.by_epoch:
                step = f'{runner.epoch}_iter_{iteration}'
            meta = dict(epoch=runner.epoch, iter=iteration)
            self._save_checkpoint_with_step(runner, step, meta)

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int | str, meta: dict[str, int]
    ) -> None:
        if self.max_keep_ckpts > 0:
            if step not in self.kept:
                self.kept.append(step)
            # A run that resumes from here deletes those that are too many.
            runner.message_hub.update_info('keep_ckpt_ids', list(self.kept))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self.saved_iter = meta['iter']
        if is_main_process():
            pointer = Path(runner.work_dir, 'last_checkpoint')
            write_atomic(pointer, self.last_ckpt)
        while len(self.kept) > self.max_keep_ckpts > 0:
            name = self.filename_tmpl.format(self.kept.popleft())
            path = self.file_backend.join_path(self.out_dir, name)
            if is_main_process() and self.file_backend.isfile(path):
                self.file_backend.remove(path)
