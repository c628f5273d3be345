"""Everything that differs between the supported stacks.

The only module that knows the quirks of torch, numpy, mmengine, mmcv and lvis.
It imports none of them until a function is called, so that an environment
without them still gets a readable error.
"""

import importlib
import inspect
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache, partial, wraps
from importlib.util import find_spec
from pickle import UnpicklingError
from types import ModuleType, SimpleNamespace
from typing import Any

from packaging.specifiers import SpecifierSet

from mmdet_longtail.errors import LongTailError, check, one_line

# torch first: the ops of mmcv are linked against its libraries.
STACK = ('torch', 'mmengine', 'mmcv', 'mmdet')

SUPPORTED_VERSIONS: tuple[dict[str, str], ...] = (
    {'mmcv': '>=2.1,<2.2', 'mmdet': '>=3.3,<3.4', 'mmengine': '>=0.10.6,<1'},
    {'mmcv': '>=2.3.6,<3', 'mmdet': '>=3.5.1,<4', 'mmengine': '>=0.10.12,<1'},
)
"""Versions that work together: OpenMMLab's releases, the OneDL forks."""

SUPPORTED = (
    'mmcv 2.1.x with ops, mmdet 3.3.x and mmengine >= 0.10.6 (or onedl-mmcv '
    '>= 2.3.6 with ops, onedl-mmdetection >= 3.5.1 and onedl-mmengine >= '
    '0.10.12)'
)


class StackError(ImportError):
    """The stack is incomplete or unsupported.

    Uncaught, the error is one line on stderr instead of a stack trace.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        sys.excepthook = partial(_print_exception, sys.excepthook)


def _print_exception(print_other: Callable[..., None], *info: Any) -> None:
    if issubclass(info[0], StackError):
        print(f'error: {info[1]}', file=sys.stderr)
    else:
        print_other(*info)


def check_stack() -> None:
    """Check that torch and one of the supported stacks are installed.

    Raises:
        StackError: If a package is missing, mmcv has no ops, or the versions
            are not of one stack.
    """
    found = {name: _find_version(name) for name in STACK}
    if not any(' ' in version for version in found.values()) and any(
        all(
            SpecifierSet(versions).contains(found[name], prereleases=True)
            for name, versions in stack.items()
        )
        for stack in SUPPORTED_VERSIONS
    ):
        return
    listed = ', '.join(f'{name} {version}' for name, version in found.items())
    raise StackError(
        f'mmdet_longtail needs {SUPPORTED}, found {listed}; `make setup` in '
        'a checkout of mmdet_longtail builds an environment that has them; '
        'for Python 3.12 and torch 2.12, OneDL publishes onedl-mmcv compiled '
        '(docs/launch.md)'
    )


def _find_version(name: str) -> str:
    """Return the version of a module, or in words why it does not work."""
    if find_spec(name) is None:
        return 'not installed'
    try:
        version = str(importlib.import_module(name).__version__)
    # Such as AssertionError: mmdet asserts the version of mmcv. mmpretrain's
    # torchvision lacks operators with a torch of another build: RuntimeError.
    except Exception as error:
        return f'not importable ({_first_line(error)})'
    if name == 'mmcv':
        try:
            importlib.import_module('mmcv._ext')
        except ModuleNotFoundError:
            return f'{version} without ops'
        except ImportError as error:
            reason = _first_line(error)
            return f'{version} with ops built for another torch ({reason})'
    return version


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0]


def allow_checkpoint_globals() -> None:
    """Allow ``torch.load(weights_only=True)`` to read mmengine's checkpoints.

    Such a checkpoint holds the log history: `HistoryBuffer` objects and numpy
    values, under the module names of the numpy (1 or 2) that wrote them.
    Nothing is allowed that could run foreign code. Stand-ins build the numpy
    values, because numpy's own constructors take shapes, dtypes and objects
    that corrupt the memory of the process. Before torch 2.6 ``weights_only``
    was not the default, and nothing is changed.
    """
    import torch
    from mmengine.logging import HistoryBuffer

    if not _has_safe_loads():
        return
    stand_ins = _numpy_stand_ins()
    # Pairs with a name, because OneDL's mmengine removes bare objects from
    # the list after each of its own loads.
    allowed: list[Any] = [
        (HistoryBuffer, f'{HistoryBuffer.__module__}.HistoryBuffer'),
        (_get_history_method, 'builtins.getattr'),
        (slice, 'builtins.slice'),
        (_empty_bytes, 'builtins.bytes'),  # of an empty array
        (stand_ins.Array, 'numpy.ndarray'),
        (stand_ins.DType, 'numpy.dtype'),
    ]
    for package in ('numpy.core', 'numpy._core'):
        name = f'{package}.multiarray'
        allowed.append((stand_ins.reconstruct, f'{name}._reconstruct'))
        allowed.append((stand_ins.scalar, f'{name}.scalar'))
    torch.serialization.add_safe_globals(allowed)
    loader: Any = importlib.import_module('mmengine.runner.checkpoint')
    if hasattr(loader, 'get_torch_safe_globals'):
        # OneDL's mmengine allows numpy's own constructors for its loads.
        loader.get_torch_safe_globals = list


def _empty_bytes() -> bytes:
    return b''


def _has_safe_loads() -> bool:
    import torch
    from mmengine.utils import digit_version

    return digit_version(torch.__version__) >= digit_version('2.6')


@cache
def _numpy_stand_ins() -> SimpleNamespace:
    """Return what a checkpoint may call in the place of numpy's own.

    They build arrays of numbers, whose sizes fit their bytes.
    """
    import numpy as np

    codes = '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']

    class DType:
        """A dtype of numbers, and then its byte order."""

        def __init__(self, code: str, *args: Any) -> None:
            if type(code) is not str or np.dtype(code).char not in codes:
                raise UnpicklingError(
                    f'a checkpoint may not have arrays of dtype {code!r}'
                )
            self.dtype = np.dtype(code)

        def __setstate__(self, state: Any) -> None:
            _, order, *rest = state
            if order not in ('<', '>', '|', '=') or any(rest[:3]):
                raise UnpicklingError(
                    'a checkpoint may not have arrays of records'
                )
            self.dtype = self.dtype.newbyteorder(order)

    class Array(np.ndarray):
        """An array of numbers, empty until its state is set."""

        def __new__(cls) -> 'Array':
            return super().__new__(cls, (0,))

        def __setstate__(self, state: Any) -> None:
            _, shape, kind, is_fortran, content = state
            if (
                type(kind) is not DType
                or type(content) is not bytes
                or min(shape, default=0) < 0
            ):
                raise UnpicklingError(
                    'a checkpoint may not have arrays of objects'
                )
            flat = np.frombuffer(content, kind.dtype)
            array = flat.reshape(shape, order='F' if is_fortran else 'C')
            super().__setstate__(array.__reduce__()[2])

        def __reduce__(self) -> Any:
            return self.view(np.ndarray).__reduce__()

    def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
        if kind is not Array or shape != (0,):
            raise UnpicklingError('a checkpoint may not have this array')
        return Array()

    def scalar(kind: Any, content: Any) -> Any:
        if type(kind) is not DType or type(content) is not bytes:
            raise UnpicklingError('a checkpoint may not have this scalar')
        [value] = np.frombuffer(content, kind.dtype)
        return value

    return SimpleNamespace(
        DType=DType, Array=Array, reconstruct=reconstruct, scalar=scalar
    )


@contextmanager
def weights_only_loads() -> Iterator[None]:
    """Load checkpoints without code, also where the stack would run it.

    OneDL's mmengine loads a file again by pickle if it is more than weights.
    """
    kept = dict(os.environ)
    if _has_safe_loads():
        os.environ.pop('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', None)
        os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    try:
        yield
    finally:
        for name in ('NO_WEIGHTS_ONLY_LOAD', 'WEIGHTS_ONLY_LOAD'):
            os.environ.pop(f'TORCH_FORCE_{name}', None)
            if f'TORCH_FORCE_{name}' in kept:
                os.environ[f'TORCH_FORCE_{name}'] = kept[f'TORCH_FORCE_{name}']


def _get_history_method(owner: type, name: str) -> Callable:
    """Return a method that a `HistoryBuffer` pickles as a ``getattr``."""
    from mmengine.logging import HistoryBuffer

    allowed = ('min', 'max', 'mean', 'current')
    if owner is not HistoryBuffer or name not in allowed:
        raise UnpicklingError(
            f'a checkpoint may not look up {name!r} of {owner!r}'
        )
    return getattr(HistoryBuffer, name)


def name_unreadable_images() -> None:
    """Let ``LoadImageFromFile`` name each file that is no image.

    OpenCV does not know the name, and its error has none. A missing file is
    named by its own error.
    """
    import cv2
    from mmcv.transforms import LoadImageFromFile

    load = LoadImageFromFile.transform

    @wraps(load)
    def transform(self: Any, results: dict[str, Any]) -> dict | None:
        try:
            return load(self, results)
        except FileNotFoundError:
            raise
        except (cv2.error, AssertionError, OSError, ValueError) as error:
            reason = one_line(getattr(error, 'strerror', None) or '')
            raise LongTailError(
                f'{results["img_path"]}: not an image that can be read'
                f'{reason and f" ({reason})"}; replace the file, or remove '
                'the image from the annotation file'
            ) from error

    LoadImageFromFile.transform = transform


def name_our_configs() -> None:
    """Let mmengine find our configs as ``mmdet_longtail::eql/NAME.py``.

    mmengine has a fixed table of packages, and looks for an editable package
    in site-packages, where none is. It builds the parts of a package's base in
    the registries of that package; ours are mmdet's. For each base it reads
    the hundred metafiles of mmdet anew: here once per process.
    """
    utils: Any = importlib.import_module('mmengine.config.utils')
    hub: Any = importlib.import_module('mmengine.hub.hub')
    config: Any = importlib.import_module('mmengine.config').Config
    package, folder = __package__, os.path.dirname(__file__)
    find_package, find_base = hub.get_installed_path, config._get_cfg_path

    def get_installed_path(name: str) -> str:
        return folder if name == package else find_package(name)

    @cache
    def find_external(path: str) -> tuple[str, str | None]:
        owner, _, name = path.partition('::')
        if owner == package:
            return utils._get_external_cfg_base_path(folder, name), None
        return find_base(path, '')

    def get_cfg_path(path: str, filename: str) -> tuple[str, str | None]:
        is_external = '::' in path
        return (
            find_external(path) if is_external else find_base(path, filename)
        )

    utils.MODULE2PACKAGE[package] = package
    utils.load = cache(utils.load)
    hub.get_installed_path = get_installed_path
    config._get_cfg_path = staticmethod(get_cfg_path)


@cache
def accept_temperature() -> None:
    """Let mmdet's normed layers take ``temperature`` on both stacks.

    mmdet 3.3 spells the argument ``tempearture``, OneDL's ``temperature``.
    Each takes both spellings, so that configs of either work.
    """
    layers: Any = importlib.import_module('mmdet.models.layers')
    for kind in (layers.NormedLinear, layers.NormedConv2d):
        kind.__init__ = _with_both_spellings(kind)


def _with_both_spellings(kind: Any) -> Callable[..., None]:
    init, spellings = kind.__init__, {'tempearture', 'temperature'}
    signature = inspect.signature(init)
    [own] = spellings & signature.parameters.keys()
    [other] = spellings - {own}

    @wraps(init)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        if other in kwargs:
            check(
                own not in kwargs,
                f'{kind.__name__}: has temperature and tempearture; a _base_ '
                'sets one of them, write the same',
            )
            kwargs[own] = kwargs.pop(other)
        init(self, *args, **kwargs)

    parameters = list(signature.parameters.values())
    parameters.insert(-1, signature.parameters[own].replace(name=other))
    build.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters
    )
    return build


def format_configs_once() -> None:
    """Let mmengine format the text of a config once per process.

    It formats the config of a run for each checkpoint, which takes half a
    second.
    """
    config: Any = importlib.import_module('mmengine.config.config')
    yapf: Any = importlib.import_module('yapf.yapflib.yapf_api')
    format_code = yapf.FormatCode
    formatted: dict[str, Any] = {}

    @wraps(format_code)
    def format_once(text: str, *args: Any, **kwargs: Any) -> Any:
        if text not in formatted:
            formatted[text] = format_code(text, *args, **kwargs)
        return formatted[text]

    # OneDL's mmengine imports the function where it calls it.
    for module in (yapf, config):
        if hasattr(module, 'FormatCode'):
            module.FormatCode = format_once


def import_lvis() -> ModuleType:
    """Import the package lvis and make it work with numpy 2.

    lvis 0.5.3 uses ``numpy.float``, which numpy 1.24 removed. Only the name
    ``np`` inside ``lvis.eval`` is replaced; numpy itself does not change.

    Raises:
        LongTailError: If lvis is not installed.
    """
    check(
        find_spec('lvis'),
        'lvis is not installed, which evaluates annotations in the LVIS '
        'format; install it (pip install lvis)',
    )
    import numpy as np

    evaluation: Any = importlib.import_module('lvis.eval')
    evaluation.np = SimpleNamespace(**{**vars(np), 'float': float})
    return importlib.import_module('lvis')


def check_mmpretrain() -> None:
    """Check that mmpretrain, which image classification needs, works.

    Raises:
        LongTailError: If it is missing or cannot be imported.
    """
    found = _find_version('mmpretrain')
    check(
        ' ' not in found,
        f'mmdet_longtail.classification needs mmpretrain, found {found}; '
        'install it with the extra [classification] (pip install '
        "'.[classification]' in a checkout of mmdet_longtail), or make an "
        'environment with `make setup STACK=classification`',
    )


@cache
def prepare() -> None:
    """Check the stack and work around its quirks, once per process.

    Every package that registers something calls this function first.

    Raises:
        StackError: See `check_stack`.
    """
    # Idle threads of libgomp spin until they get work, and slow each other
    # down manyfold beside other jobs. Threads that never spin are slower
    # alone (docs/launch.md). The variables are read when torch is loaded.
    if 'OMP_WAIT_POLICY' not in os.environ:
        os.environ.setdefault('GOMP_SPINCOUNT', '10000')
    # Messages of OneDL's mmdet on each import.
    warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
    check_stack()
    with redirect_stdout(io.StringIO()):
        importlib.import_module('mmdet.datasets')
    allow_checkpoint_globals()
    name_unreadable_images()
    format_configs_once()
    name_our_configs()
    if find_spec('lvis') is not None:
        import_lvis()
