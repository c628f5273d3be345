"""Two real gloo ranks on this machine."""

import os
import socket
from datetime import timedelta

import torch
from torch import distributed, multiprocessing

LONGEST_WAIT = timedelta(seconds=90)


def store():
    """A store for two ranks; a file as the store can hang at its end."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return f'tcp://127.0.0.1:{probe.getsockname()[1]}'


def run_on_two_ranks(function, *args):
    """Call function(rank, *args) in two processes with a process group.

    A rank that waits for the other one for too long fails.
    """
    multiprocessing.spawn(_start, args=(store(), function, args), nprocs=2)


def _start(rank, init_method, function, args):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    distributed.init_process_group(
        'gloo',
        init_method=init_method,
        rank=rank,
        world_size=2,
        timeout=LONGEST_WAIT,
    )
    function(rank, *args)
    distributed.destroy_process_group()
