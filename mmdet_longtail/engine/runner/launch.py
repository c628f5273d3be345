"""Launching of distributed runs, with and without GPUs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import (
    broadcast_object_list,
    init_dist,
    is_main_process,
)
from mmengine.utils.dl_utils import set_multi_processing

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.locks import locked

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
"""Variables that a launcher sets for its processes, and its commands."""

FIRST_PORT, NUM_PORTS = 20000, 10000


def set_up_launcher(config: Config, launcher: str) -> None:
    """Prepare a config for a launcher, also on machines without a GPU.

    mmengine sets a CUDA device before it checks whether there is one. It
    also gives DistributedDataParallel a device that CPU parameters are not
    on. Without a GPU this function therefore starts the process group (gloo);
    otherwise the runner does.

    Args:
        config (Config): Config of the run, changed in place.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Raises:
        LongTailError: If this process was not started by the launcher.
    """
    config.launcher = launcher
    if launcher == 'none':
        return
    variables, starters = LAUNCHERS[launcher]
    missing = [name for name in variables if name not in os.environ]
    if missing:
        raise LongTailError(
            f'--launcher {launcher}: {missing[0]} is not set, so the '
            f'launcher did not start this process; start it by {starters}'
        )
    if launcher == 'pytorch':
        os.environ.setdefault('LOCAL_RANK', '0')
    elif launcher == 'slurm':
        # mmengine's port is always 29500, but jobs share nodes.
        port = FIRST_PORT + int(os.environ['SLURM_JOB_ID']) % NUM_PORTS
        os.environ.setdefault('MASTER_PORT', str(port))
    if get_device() == 'cpu':
        env_cfg = config.get('env_cfg') or {}
        # As in the runner: init_dist would set another start method.
        set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
        dist_cfg = dict(env_cfg.get('dist_cfg', {}), backend='gloo')
        set_device = torch.cuda.set_device
        torch.cuda.set_device = lambda device: None
        try:
            init_dist(launcher, **dist_cfg)
        finally:
            torch.cuda.set_device = set_device
        wrapper = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
        config.setdefault('model_wrapper_cfg', wrapper)


@contextmanager
def exclusive_training(work_dir: str) -> Iterator[None]:
    """Lock a work directory by rank 0, for all ranks of a training.

    Raises:
        LongTailError: On every rank, if another training is running there.
    """
    result: list[Any] = [None]
    with ExitStack() as stack:
        if is_main_process():
            try:
                stack.enter_context(locked(work_dir))
            except LongTailError as error:
                result = [error]
        broadcast_object_list(result)
        if result[0] is not None:
            raise result[0]
        yield
