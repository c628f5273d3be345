"""Arguments that a config gives to a class: validated, and explained.

The package's own constructors are annotated, and values are validated against
the annotations. Of the arguments of other classes only the names are checked.
"""

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from inspect import Parameter
from numbers import Integral, Real
from traceback import walk_tb
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mmdet_longtail.errors import LongTailError, check, one_line

PACKAGE = __name__.partition('.')[0]
PLAIN = (str, int, float, list, tuple, dict, NoneType)
IN_WORDS: dict[Any, str] = {
    NoneType: 'None',
    bool: 'True or False',
    int: 'an integer',
    float: 'a number',
    str: 'a string',
    dict: 'a dict',
}


class BuildError(LongTailError):
    """A config cannot be built; ``__cause__`` is the failure."""


def explain_mistakes(library: str) -> None:
    """Validate the arguments of the package's classes in a library's registry.

    A mistake ends in a one-line error whoever builds the class, so the
    library's own tools show the error, too. It is a LongTailError for a wrong
    name or type of an argument, and a BuildError for any other failure. A
    runner, which builds everything else, is left alone.
    """
    for name, registry in vars(import_module(f'{library}.registry')).items():
        if name.isupper() and name != 'RUNNERS':
            for kind in registry.module_dict.values():
                if inspect.isclass(kind) and _is_ours(kind):
                    _explain_mistakes_of(kind)


def _explain_mistakes_of(kind: Any) -> None:
    own = vars(kind).get('__init__')
    if hasattr(own, 'own'):
        return

    def inherited(self: Any, *args: Any, **kwargs: Any) -> None:
        super(kind, self).__init__(*args, **kwargs)

    init = own or inherited

    @functools.wraps(own or kind.__init__)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        if type(self) is not kind:
            init(self, *args, **kwargs)
            return
        given = dict(zip(Parameters(kind).positional, args)) | kwargs
        _check_types(kind, given)
        try:
            init(self, *args, **kwargs)
        except (LongTailError, ImportError):
            raise
        except Exception as error:
            if not _builds(error):
                message = _explain_names(error, kind, given)
            else:
                message = explain_build(error)
            if message:
                raise LongTailError(message) from error
            raise BuildError(
                f'{kind.__name__}: cannot be built '
                f'({type(error).__name__}: {one_line(error)}) with '
                + ', '.join(f'{k}={_short(v)}' for k, v in given.items())
            ) from error

    build.own = own  # type: ignore[attr-defined]
    kind.__init__ = build


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition('.')[0] == PACKAGE


# -- values -----------------------------------------------------------------


def _check_types(kind: type, given: Mapping[str, Any]) -> None:
    hints: dict[str, Any] = {}
    for parent, init in reversed(_constructors(kind)):
        hints |= get_type_hints(init) if _is_ours(parent) else {}
    for key, value in given.items():
        check(
            fits(value, hints.get(key, Any)),
            f'{kind.__name__}: {key} is {_short(value)}, expected '
            f'{in_words(hints.get(key))}',
        )


def fits(value: Any, hint: Any) -> bool:
    """Check that a value of a config has the type of an annotation.

    A list may stand for a tuple. A string is no sequence, True is no number.
    """
    arguments = get_args(hint)
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return any(fits(value, each) for each in arguments)
    if kind is Literal:
        return value in arguments
    if kind in (int, float):
        numbers = Integral if kind is int else Real
        return isinstance(value, numbers) and not isinstance(value, bool)
    if kind is Any or not isinstance(kind, type):
        return True
    if _is_list(hint):
        return (
            isinstance(value, Iterable)
            and not isinstance(value, str | Mapping)
            and all(fits(item, arguments[0]) for item in value)
        )
    return isinstance(value, kind)


def in_words(hint: Any) -> str:
    """Describe the values that `fits` an annotation."""
    arguments = get_args(hint)
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return ' or '.join(dict.fromkeys(map(in_words, arguments)))
    if kind is Literal:
        return ' or '.join(map(repr, arguments))
    if _is_list(hint):
        return f'a list, each item {in_words(arguments[0])}'
    return IN_WORDS.get(kind) or f'a {getattr(kind, "__name__", kind)}'


def _is_list(hint: Any) -> bool:
    kind = get_origin(hint)
    return isinstance(kind, type) and not issubclass(kind, Mapping)


def _short(value: Any) -> str:
    shortened = reprlib.Repr()
    shortened.maxlevel = 2
    return one_line(shortened.repr(value))


# -- names ------------------------------------------------------------------


def explain_build(error: BaseException) -> str | None:
    """Explain a failure to build a config, whoever owns the class.

    Returns:
        str | None: One line if a type or the name of an argument is wrong, or
        an argument that should be a config is none.
    """
    scopes = _builds(error)
    scope = scopes[-1] if scopes else {}
    if len(scopes) > 1 and 'obj_type' not in scope:
        return _explain_config(scope['cfg'], scopes[-2])
    kind, name = scope.get('obj_cls'), scope.get('obj_type')
    if inspect.isclass(kind):
        return _explain_names(error, kind, scope['args'])
    if kind is None and isinstance(name, str):
        return _explain_type(name, scope['registry'])
    for frame, _ in walk_tb(error.__traceback__):
        # mmengine builds an optimizer without build_from_cfg.
        local = frame.f_locals
        if local.get('optimizer_cls', error) is None:
            name = local['optimizer_cfg']['type']
            return _explain_type(name, local['registry'])
    return None


def is_building(error: BaseException) -> bool:
    """Check that a function of mmengine that builds from a config failed."""
    return any(
        frame.f_code.co_name.startswith('build_')
        and frame.f_globals.get('__name__', '').startswith('mmengine.')
        for frame, _ in walk_tb(error.__traceback__)
    )


def _builds(error: BaseException) -> list[dict[str, Any]]:
    """Return the variables of the calls of mmengine's build function."""
    return [
        dict(frame.f_locals)
        for frame, _ in walk_tb(error.__traceback__)
        if frame.f_code.co_name == 'build_from_cfg'
    ]


def _explain_config(value: Any, owner: dict[str, Any]) -> str | None:
    """Explain an argument of the owner that has no type to build."""
    given = owner.get('args') or {}
    keys = [key for key in given if given[key] is value]
    if len(keys) != 1:
        return None
    return (
        f'{owner["obj_cls"].__name__}: {keys[0]} is {_short(value)}, expected '
        "a dict with the key 'type'"
    )


def _explain_type(name: str, registry: Any) -> str:
    place = registry.name
    kinds: dict[str, Any] = {}
    while registry is not None:
        kinds |= registry.module_dict
        registry = registry.parent
    near = get_close_matches(name.rpartition('.')[2], kinds)
    ours = sorted(key for key, kind in kinds.items() if _is_ours(kind))
    advice = (
        f'did you mean {" or ".join(map(repr, near))}?'
        if near
        else 'check the spelling, or name the module in custom_imports'
    )
    listed = f'; {PACKAGE} has {", ".join(ours)}' if ours else ''
    return f'type={name!r}: no such {place}; {advice}{listed}'


def _explain_names(
    error: BaseException, kind: type, given: Mapping[str, Any]
) -> str | None:
    """Explain a TypeError by the names of the arguments."""
    name, parameters = kind.__name__, Parameters(kind)
    known = parameters.named
    unknown = [key for key in given if key not in known]
    missing = [key for key in parameters.required if key not in given]
    if not isinstance(error, TypeError):
        return None
    values = [f'type={name!r}', *(f'{key}=...' for key in missing)]
    values += [
        f'{k}={_short(v)}'
        for k, v in given.items()
        if k in known and isinstance(v, PLAIN)  # no object of the runner
    ]
    key = 'loss_cls=' if name.endswith('Loss') else ''
    names = f'arguments are {", ".join(known) or "none"}'
    if '_delete_' in unknown:
        return f'{name}: remove _delete_=True, no _base_ sets anything here'
    if unknown and not parameters.takes_any:
        near = get_close_matches(unknown[0], known.keys() - given.keys(), 1)
        hint = f'did you mean {near[0]!r}? ' if near else ''
        return (
            f'{name}: has no argument {unknown[0]!r}; {hint}if a _base_ sets '
            f'it, write {key}dict(_delete_=True, {", ".join(values)}); {names}'
        )
    if missing:
        return (
            f'{name}: {missing[0]} is missing; write '
            f'{key}dict({", ".join(values)}); {names}'
        )
    return None


# -- constructors -----------------------------------------------------------


def _constructors(kind: type) -> list[tuple[type, Callable[..., None]]]:
    """List the constructors that keyword arguments reach, in their order."""
    found = []
    for parent in kind.__mro__[:-1]:
        init = vars(parent).get('__init__')
        init = getattr(init, 'own', init)
        if init is not None:
            found.append((parent, init))
            if Parameter.VAR_KEYWORD not in {
                p.kind for p in _without_self(init)
            }:
                break
    return found


def _without_self(init: Callable[..., None]) -> list[Parameter]:
    return [*inspect.signature(init).parameters.values()][1:]


class Parameters:
    """The parameters of a class, those of inherited constructors too."""

    def __init__(self, kind: type) -> None:
        self.named: dict[str, Parameter] = {}
        self.positional: list[str] = []
        self.takes_any = False  # by **kwargs that reach no other constructor
        takes_positional = True
        for _, init in _constructors(kind):
            parameters = _without_self(init)
            kinds = {parameter.kind for parameter in parameters}
            self.takes_any = Parameter.VAR_KEYWORD in kinds
            for parameter in parameters:
                is_positional = (
                    parameter.kind is Parameter.POSITIONAL_OR_KEYWORD
                )
                if is_positional or parameter.kind is Parameter.KEYWORD_ONLY:
                    self.named.setdefault(parameter.name, parameter)
                if is_positional and takes_positional:
                    self.positional.append(parameter.name)
            takes_positional &= Parameter.VAR_POSITIONAL in kinds
        self.required = [
            name
            for name, parameter in self.named.items()
            if parameter.default is Parameter.empty
        ]
