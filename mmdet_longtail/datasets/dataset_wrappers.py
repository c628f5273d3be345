"""A dataset wrapper for reproducible augmentation."""

from typing import Any

from mmdet.registry import DATASETS

from mmdet_longtail.utils.seeding import seed_all


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

    def __getitem__(self, item: tuple[int, tuple[int, ...]]) -> Any:
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
