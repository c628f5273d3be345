"""Two real gloo ranks on this machine."""

import os
import socket

import torch
from torch import distributed, multiprocessing


def run_on_two_ranks(function, *args):
    """Call function(rank, *args) in two processes with a process group."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    multiprocessing.spawn(_start, args=(port, function, args), nprocs=2)


def _start(rank, port, function, args):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    # A file as the store can hang when its last users close it.
    distributed.init_process_group(
        'gloo',
        init_method=f'tcp://127.0.0.1:{port}',
        rank=rank,
        world_size=2,
    )
    function(rank, *args)
    distributed.destroy_process_group()
