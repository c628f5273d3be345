"""Parts of a config: the classes that it names, and its datasets."""

from collections.abc import Mapping
from typing import Any


def resolve_type(registry: Any, config: Mapping[str, Any]) -> Any:
    """Return the class of a config's type; None if it is not registered.

    A type is a name with or without a scope, the path of a class, or the
    class itself.
    """
    kind = config.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind


def is_type(registry: Any, config: Any, *kinds: type) -> bool:
    """Return whether a config is of one of several classes."""
    is_config = isinstance(config, Mapping)
    kind = resolve_type(registry, config) if is_config else None
    return isinstance(kind, type) and issubclass(kind, kinds)


def innermost(dataset: Any) -> Any:
    """Return the config of a dataset without its wrappers."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def type_name(config: Mapping[str, Any]) -> str:
    """Return the name of a config's type, without scope and module."""
    kind = config.get('type', '')
    return getattr(kind, '__name__', str(kind)).rpartition('.')[-1]
