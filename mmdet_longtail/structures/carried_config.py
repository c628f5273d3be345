"""What a config of a checkpoint, a file of anybody, may import and name."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mmengine.registry import Registry, root
from mmengine.utils import get_object_from_string, import_modules_from_strings

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.literal_config import WAY_OUT

PACKAGES = ('mmdet_longtail', 'mmdet', 'mmpretrain', 'mmengine', 'mmcv')
LIBRARIES = ('torch', 'torchvision')
"""Of the names in a config that mmengine wrote from classes."""

NAMING_KEYS = ('type', 'constructor', 'runner_type')
SCOPE_KEYS = ('default_scope', '_scope_')

_IDENTIFIERS = re.compile(r'(?!.*\b__\w*__\b)[^\W\d]\w*(\.[^\W\d]\w*)*')
_is_trusted: ContextVar[bool] = ContextVar('is_trusted', default=False)


@contextmanager
def trusted_configs(is_trusted: bool = True) -> Iterator[None]:
    """Execute the configs that checkpoints carry, as mmengine does its own.

    The configs can then run any code. Use it for files of your own, whose
    config is more than literals.
    """
    token = _is_trusted.set(is_trusted)
    try:
        yield
    finally:
        _is_trusted.reset(token)


def trust_configs() -> None:
    """Execute carried configs from here on, see `trusted_configs`."""
    _is_trusted.set(True)


def are_configs_trusted() -> bool:
    """Check whether carried configs are executed."""
    return _is_trusted.get()


def import_custom_modules(config: Mapping[str, Any]) -> None:
    """Import the custom_imports of a carried config.

    Raises:
        LongTailError: If one is not installed, or is no module of the stack
            and configs are not trusted.
    """
    imports = config.get('custom_imports') or {}
    names = imports.get('imports') if isinstance(imports, Mapping) else None
    names = [names] if isinstance(names, str) else names or []
    check(
        isinstance(imports, Mapping)
        and isinstance(names, list | tuple)
        and all(isinstance(name, str) for name in names),
        'has custom_imports that are not module names, expected '
        "dict(imports=['NAME', ...])",
    )
    for name in names:
        check(
            are_configs_trusted() or _is_of(name, PACKAGES),
            f'imports {name}, which is third-party code; {WAY_OUT}',
        )
    try:
        import_modules_from_strings(
            list(names), bool(imports.get('allow_failed_imports'))
        )
    except ImportError as error:
        raise LongTailError(
            f'imports a module that is not installed ({error})'
        ) from error


def check_names(config: Mapping[str, Any] | list) -> None:
    """Check that a carried config builds registered classes only.

    For any other name mmengine imports the module and calls what it finds
    there, such as ``type='os.system'``.

    Raises:
        LongTailError: If a name is another one.
    """
    registered: dict[str, list[Any]] | None = None
    nodes: list[Any] = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list | tuple):
            nodes.extend(node)
        if not isinstance(node, Mapping):
            continue
        nodes.extend(node.values())
        for key in SCOPE_KEYS:
            scope = node.get(key) or 'mmdet'
            check(
                scope in PACKAGES,
                f'has {key}={scope!r}, which is third-party code; {WAY_OUT}',
            )
        for key in NAMING_KEYS:
            name = node.get(key)
            if isinstance(name, str):
                registered = registered or _registered()
                check(
                    _is_harmless(name, registered),
                    f'has {key}={name!r}, which is not registered in '
                    f'mmengine; {WAY_OUT}',
                )


def _is_of(name: str, packages: tuple[str, ...]) -> bool:
    is_plain = _IDENTIFIERS.fullmatch(name) is not None
    return is_plain and name.partition('.')[0] in packages


def _is_harmless(name: str, registered: Mapping[str, list[Any]]) -> bool:
    """Check that a name finds a registered object, or nothing."""
    if name in registered:
        return True
    try:
        if '.' not in name:
            # Such as an augmentation, which albumentations finds.
            return find_spec(name) is None
        if not _is_of(name, PACKAGES + LIBRARIES):
            return False
        found = get_object_from_string(name)
    except Exception:  # of any kind: the import of a module
        return False
    known = registered.get(name.rpartition('.')[2], ())
    return found is None or any(found is each for each in known)


def _registered() -> dict[str, list[Any]]:
    """Collect the objects of all registries by name."""
    for package in ('mmdet', 'mmpretrain'):
        if find_spec(package) is not None:
            import_module(f'{package}.registry')
    found: dict[str, list[Any]] = {}
    registries = [r for r in vars(root).values() if isinstance(r, Registry)]
    for registry in registries:
        registries.extend(registry.children.values())
        registry.import_from_location()
        for name, known in registry.module_dict.items():
            found.setdefault(name, []).append(known)
    return found
