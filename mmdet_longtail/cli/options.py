"""Command-line options that several tools have."""

import argparse
import os
from collections.abc import Sequence
from typing import Any


class _CfgOptions(argparse.Action):
    """Parse values as mmengine does, which is imported only if there are any.

    A tool that also works without mmengine can thus have ``--cfg-options``.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Set a dict of dotted keys and parsed values."""
        from mmengine.config import DictAction

        parse = DictAction(self.option_strings, self.dest, nargs='+')
        parse(parser, namespace, values, option_string)


def add_cfg_options(
    parser: argparse.ArgumentParser,
    description: str = 'override keys of the config; '
    'lists as key="[a,b]" or key=a,b',
) -> None:
    """Add ``--cfg-options``, which becomes a dict or None.

    Args:
        parser (argparse.ArgumentParser): Parser of a tool.
        description (str): Help text.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_CfgOptions,
        metavar='KEY=VALUE',
        help=description,
    )


class _LocalRank(argparse.Action):
    """Hand the rank on that torch.distributed.launch gives as an option."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Set the variable that mmengine reads, if it is not set."""
        os.environ.setdefault('LOCAL_RANK', str(values))


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training or a test."""
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='directory for logs, checkpoints and metrics (default: the '
        "config's work_dir, else work_dirs/<name of the config>)",
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        action=_LocalRank,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a held-out split of the training set."""
    parser.add_argument(
        '--held-out',
        type=fraction,
        default=0.2,
        metavar='FRACTION',
        help='fraction of the training images to hold out (default: 0.2)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='random seed (default: 0)'
    )


def positive_int(text: str) -> int:
    """Convert an argument to an integer >= 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return number


def fraction(text: str) -> float:
    """Convert an argument to a number between 0 and 1, both exclusive."""
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return number
