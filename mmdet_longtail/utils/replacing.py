"""Attributes of an object that change for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Set attributes of an instance, and restore what was there.

    A method that the class has, and not the instance, is the class's again.
    """
    kept = {name: vars(owner).get(name) for name in attributes}
    was_own = {name: name in vars(owner) for name in attributes}
    for name, value in attributes.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name in attributes:
            if was_own[name]:
                setattr(owner, name, kept[name])
            else:
                delattr(owner, name)
