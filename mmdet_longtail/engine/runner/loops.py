"""Training loops that go on as if they had not stopped."""

from __future__ import annotations

from typing import Any

from mmdet.registry import LOOPS
from mmengine.dist import get_rank
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmdet_longtail.engine.runner.worker_signals import keep_workers
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.seeding import seed_all

BATCHES_SEEN = 'batches_seen'


def seeded_dataloader(runner: Runner, config: dict[str, Any]) -> DataLoader:
    """Build a data loader whose batches are a function of the iteration.

    Args:
        runner (Runner): Has the seed.
        config (dict): train_dataloader.

    Raises:
        LongTailError: If ``randomness`` has no seed.
    """
    randomness = runner._randomness_cfg
    if randomness.get('seed') is None:
        raise LongTailError(
            'randomness.seed is not set, and a resumed run would draw '
            'another one; set randomness=dict(seed=0)'
        )
    config = dict(config)
    config['batch_sampler'] = dict(
        type='mmdet.SeededBatchSampler',
        seed=randomness['seed'],
        batch_sampler=config.get('batch_sampler'),
        drop_last=config.pop('drop_last', False),
    )
    config['dataset'] = dict(
        type='mmdet.SeededDataset', dataset=config['dataset']
    )
    dataloader = runner.build_dataloader(
        config, runner.seed, randomness.get('diff_rank_seed', False)
    )
    keep_workers(dataloader)
    return dataloader


def seed_iteration(runner: Runner, iteration: int) -> None:
    """Seed what a training step draws, such as its sample of RoIs."""
    seed_all(runner._randomness_cfg['seed'], get_rank(), iteration, 0)


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which can start within an epoch.

    What is random in an iteration is a function of the seed, the rank and
    the number of the iteration, so there is no state of generators to save.
    Arguments are those of ``EpochBasedTrainLoop``.

    Raises:
        LongTailError: If there is no seed, or if the sampler does not repeat
            an epoch.
    """

    def __init__(
        self, runner: Runner, dataloader: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(
            runner, seeded_dataloader(runner, dataloader), **kwargs
        )
        self.dataloader.batch_sampler.check_repeatable()

    def run_epoch(self) -> None:
        """Go through the rest of an epoch."""
        hub = self.runner.message_hub  # goes into the checkpoint
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        seen = hub.get_info(BATCHES_SEEN, 0)
        self.dataloader.batch_sampler.start_at(seen, self._iter)
        for idx, data_batch in enumerate(self.dataloader, seen):
            hub.update_info(BATCHES_SEEN, idx + 1)
            self.run_iter(idx, data_batch)
        hub.update_info(BATCHES_SEEN, 0)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Take a step."""
        seed_iteration(self.runner, self._iter)
        super().run_iter(idx, data_batch)


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(IterBasedTrainLoop):
    """mmengine's loop over iterations, with seeded steps and batches.

    mmengine finds the place by going through all batches before it. Arguments
    are those of ``IterBasedTrainLoop``.

    Raises:
        LongTailError: If there is no seed.
    """

    def __init__(
        self, runner: Runner, dataloader: dict[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(
            runner, seeded_dataloader(runner, dataloader), **kwargs
        )

    def run_iter(self, data_batch: Any) -> None:
        """Take a step."""
        seed_iteration(self.runner, self._iter)
        super().run_iter(data_batch)
