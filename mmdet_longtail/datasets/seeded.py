"""Reproducible augmentation, and resuming within an epoch."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dist import get_rank
from torch.utils.data import BatchSampler, Sampler

from mmdet_longtail.errors import check
from mmdet_longtail.utils.seeding import seed_all

Item = tuple[int, tuple[int, ...]]


@DATA_SAMPLERS.register_module()
class SeededBatchSampler(Sampler):
    """Yields the batches of another batch sampler, starting at any of them.

    Each index is paired with the words that ``SeededDataset`` seeds from: the
    seed, the rank, the iteration and the place in the batch.

    Args:
        sampler (Sampler): Yields the indices.
        batch_size (int): Images per batch on this rank.
        seed (int): 0 or more.
        batch_sampler (dict, optional): Config of the wrapped batch sampler,
            such as mmdet's AspectRatioBatchSampler. Defaults to torch's own.
        drop_last (bool): Whether torch's own drops a last incomplete batch.
    """

    def __init__(
        self,
        sampler: Any,
        batch_size: int,
        seed: int,
        batch_sampler: dict[str, Any] | None = None,
        drop_last: bool = False,
    ) -> None:
        self.sampler = sampler  # where mmengine looks for set_epoch
        self.batch_size = batch_size
        self.words = (seed, get_rank())
        self.batch_sampler: Any
        if batch_sampler is None:
            self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batch_sampler = DATA_SAMPLERS.build(
                dict(batch_sampler, sampler=sampler, batch_size=batch_size)
            )
        self.start_at(0, 0)

    def start_at(self, batch: int, iteration: int) -> None:
        """Set the first batch of the next epoch and its iteration, from 0."""
        self.batch = batch
        self.iteration = iteration

    def check_repeatable(self) -> None:
        """Check that the sampler yields an epoch twice alike.

        Raises:
            LongTailError: If two starts of one epoch differ.
        """
        first, second = (list(islice(self.sampler, 100)) for _ in range(2))
        check(
            first == second,
            f'train_dataloader.sampler: {type(self.sampler).__name__} gives '
            'other images when an epoch starts again, so a run cannot resume '
            'within an epoch; use DefaultSampler, RepeatFactorSampler or '
            'ClassAwareImageSampler',
        )

    def __iter__(self) -> Iterator[list[Item]]:
        batch, self.batch = self.batch, 0
        for indices in islice(self.batch_sampler, batch, None):
            iteration, self.iteration = self.iteration, self.iteration + 1
            yield [
                # From 1: the training step itself is at place 0.
                (index, (*self.words, iteration, place))
                for place, index in enumerate(indices, 1)
            ]

    def __len__(self) -> int:
        """Return the number of batches per epoch on this rank."""
        return len(self.batch_sampler)


@DATASETS.register_module()
class SeededDataset:
    """Sets the random seeds before it loads each sample.

    The augmentation then depends neither on earlier samples nor on the number
    of workers. All other attributes are read from and set on the wrapped
    dataset.

    Args:
        dataset (mmengine.dataset.BaseDataset or dict): Any dataset, wrapped
            or not, or its config.
    """

    def __init__(self, dataset: Any) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        self.__dict__['dataset'] = dataset

    def __getitem__(self, item: Item) -> Any:
        """Load a sample by its index and words, see `SeededBatchSampler`."""
        index, words = item
        seed_all(*words)
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset' or name.startswith('__'):  # while unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks switch the pipeline of a dataset by assignment.
        setattr(self.dataset, name, value)
