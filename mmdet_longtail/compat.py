"""Everything that differs between the supported stacks.

The only module that knows which torch, numpy, mmengine, mmcv and lvis quirks
exist. It imports none of them until a function is called, so that an
environment without them still gets a readable error.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pickle import UnpicklingError
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmdet_longtail.errors import LongTailError

if TYPE_CHECKING:
    from mmengine.config import Config

STACKS: tuple[dict[str, str], ...] = (
    {'mmcv': '>=2.1,<2.2', 'mmdet': '>=3.3,<3.4', 'mmengine': '>=0.10.6,<1'},
    {'mmcv': '>=2.3.6,<3', 'mmdet': '>=3.5.1,<4', 'mmengine': '>=0.10.12,<1'},
)
"""Versions that work together: OpenMMLab's releases, the OneDL forks."""

SUPPORTED = (
    'mmcv 2.1.x with ops, mmdet 3.3.x and mmengine >= 0.10.6 (or onedl-mmcv '
    '>= 2.3.6 with ops, onedl-mmdetection >= 3.5.1 and onedl-mmengine >= '
    '0.10.12)'
)


def check_stack() -> None:
    """Check that torch and one of the supported stacks are installed.

    Raises:
        ImportError: A part is missing, mmcv has no ops, or the versions are
            not of one stack. The message is one line with what is supported,
            what was found, and the way out.
    """
    # torch first: the ops of mmcv are linked against its libraries.
    found = {
        name: _find_version(name)
        for name in ('torch', 'mmengine', 'mmcv', 'mmdet')
    }
    ops = _find_ops() if _is_version(found['mmcv']) else ''
    if not ops and _is_version(found['torch']) and _is_supported(found):
        return
    listed = ', '.join(
        f'{name} {version}{ops if name == "mmcv" else ""}'
        for name, version in found.items()
    )
    raise ImportError(
        f'mmdet_longtail needs {SUPPORTED}, found {listed}; `make setup` in '
        'a checkout of mmdet_longtail builds an environment that has them'
    )


def _find_version(name: str) -> str:
    """Return the version of a module, or in words why there is none."""
    if find_spec(name) is None:
        return 'not installed'
    try:
        return str(importlib.import_module(name).__version__)
    # mmdet asserts on the version of mmcv while it is imported; mmpretrain
    # imports torchvision, which a torch of another build lacks operators for.
    except (
        ImportError,
        AssertionError,
        AttributeError,
        RuntimeError,
    ) as error:
        return f'not importable ({_first_line(error)})'


def _find_ops() -> str:
    """Return an empty text, or in words what is wrong with mmcv's ops."""
    if find_spec('mmcv._ext') is None:
        return ' without ops'
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        return f' with ops built for another torch ({_first_line(error)})'
    return ''


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0]


def _is_version(version: str) -> bool:
    return version[:1].isdigit()


def _is_supported(found: dict[str, str]) -> bool:
    from packaging.specifiers import SpecifierSet

    return any(
        all(
            _is_version(found[name])
            and SpecifierSet(versions).contains(found[name], prereleases=True)
            for name, versions in stack.items()
        )
        for stack in STACKS
    )


def allow_checkpoint_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    They hold, besides tensors, the log history: `HistoryBuffer` objects and
    numpy values, under the module names of numpy 1 or numpy 2 whichever wrote
    them. Nothing is allowed that could run foreign code. Before torch 2.6
    ``weights_only`` was not the default and there is nothing to do.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer
    from mmengine.utils import digit_version

    if digit_version(torch.__version__) < digit_version('2.6'):
        return
    reconstruct = np.zeros(1).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_get_history_method, 'builtins.getattr'),
        (slice, 'builtins.slice'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for package in ('numpy.core', 'numpy._core'):
        allowed.append((reconstruct, f'{package}.multiarray._reconstruct'))
        allowed.append((scalar, f'{package}.multiarray.scalar'))
    for code in '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat']:
        kind = type(np.dtype(code))
        allowed.append((kind, f'{kind.__module__}.{kind.__qualname__}'))
    # Pairs with a name, not bare objects: OneDL's mmengine removes the bare
    # ones from the list after each of its own loads.
    torch.serialization.add_safe_globals(allowed)


def _get_history_method(owner: type, name: str) -> Callable:
    """Stand in for ``getattr``: a `HistoryBuffer` pickles its methods so."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in (
        'min',
        'max',
        'mean',
        'current',
    ):
        raise UnpicklingError(
            f'a checkpoint may not look up {name!r} of {owner!r}'
        )
    return getattr(HistoryBuffer, name)


class _NumpyWithFloat:
    """numpy as lvis 0.5.3 knows it: ``np.float`` is the builtin."""

    float = float

    def __getattr__(self, name: str) -> Any:
        import numpy as np

        return getattr(np, name)


def import_lvis() -> ModuleType:
    """Import lvis so that it runs on numpy 2.

    ``LVISEval`` uses ``numpy.float``, which numpy 1.24 removed. Only the name
    ``np`` inside ``lvis.eval`` is replaced; numpy itself stays as it is.

    Returns:
        ModuleType: The package lvis.

    Raises:
        LongTailError: lvis is not installed.
    """
    if find_spec('lvis') is None:
        raise LongTailError(
            'lvis is not installed, which evaluates annotations in the format '
            'of LVIS; install it (pip install lvis)'
        )
    lvis = importlib.import_module('lvis')
    evaluation = importlib.import_module('lvis.eval')
    evaluation.np = _NumpyWithFloat()  # type: ignore[attr-defined]
    return lvis


def check_mmpretrain() -> None:
    """Check that mmpretrain, which image classification needs, works.

    Raises:
        LongTailError: It is missing, or it cannot be imported.
    """
    found = _find_version('mmpretrain')
    if not _is_version(found):
        raise LongTailError(
            f'mmdet_longtail.classification needs mmpretrain, found {found}; '
            'install it with the extra [classification] (pip install '
            "'.[classification]' in a checkout of mmdet_longtail), or make an "
            'environment with `make setup STACK=classification`'
        )


LAUNCHERS: dict[str, tuple[tuple[str, ...], str]] = {
    'pytorch': (
        ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
        'torchrun or tools/dist_train.sh',
    ),
    'slurm': (
        ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST', 'SLURM_JOB_ID'),
        'srun or tools/slurm_train.sh',
    ),
    'mpi': (
        ('OMPI_COMM_WORLD_LOCAL_RANK', 'MASTER_ADDR'),
        'mpirun -x MASTER_ADDR=...',
    ),
}
"""What a launcher tells its processes, and what starts them."""

FIRST_PORT, NUM_PORTS = 20000, 10000


def set_up_launcher(config: Config, launcher: str) -> None:
    """Take the launcher over, and let it work without a GPU.

    mmengine sets a CUDA device before it looks whether there is one, and
    gives DistributedDataParallel a device that CPU parameters are not on.
    Without a GPU the process group, of gloo, is there when this returns; else
    the runner starts it.

    Args:
        config (Config): Changed in place.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        LongTailError: If this process was not started by the launcher.
    """
    from mmengine.device import get_device

    config.launcher = launcher
    if launcher == 'none':
        return
    variables, starters = LAUNCHERS[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise LongTailError(
            f'--launcher {launcher}: {missing[0]} is not set, so this was not '
            f'started by the launcher; start it by {starters}'
        )
    if launcher == 'slurm':
        # mmengine takes 29500 for every job, and jobs share nodes.
        port = FIRST_PORT + int(os.environ['SLURM_JOB_ID']) % NUM_PORTS
        os.environ.setdefault('MASTER_PORT', str(port))
    if get_device() == 'cpu':
        _start_gloo(launcher, config.get('env_cfg') or {})
        config.setdefault(
            'model_wrapper_cfg',
            dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
                find_unused_parameters=config.get(
                    'find_unused_parameters', False
                ),
            ),
        )


def _start_gloo(launcher: str, env_cfg: dict[str, Any]) -> None:
    import torch
    from mmengine.dist import init_dist
    from mmengine.utils.dl_utils import set_multi_processing

    # The order of the runner: init_dist would choose another start method.
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        init_dist(
            launcher, **{**env_cfg.get('dist_cfg', {}), 'backend': 'gloo'}
        )
    finally:
        torch.cuda.set_device = set_device


def prepare() -> None:
    """Check the stack and make it work; called when the package is imported.

    Raises:
        ImportError: See `check_stack`.
    """
    # OneDL's mmdet says it whenever it is imported.
    warnings.filterwarnings('ignore', 'faster_coco_eval is not installed')
    check_stack()
    allow_checkpoint_globals()
    if find_spec('lvis') is not None:
        import_lvis()
