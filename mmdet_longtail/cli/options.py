"""Command-line options that several tools have."""

import argparse
import os
from typing import Any


class _CfgOptions(argparse.Action):
    """Parse values as mmengine does, which is imported only if there are any.

    A tool that also works without mmengine can thus have ``--cfg-options``.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest, nargs='+')(*args, **kwargs)


class _LocalRank(argparse.Action):
    """Set the variable that mmengine reads, if it is not set."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        os.environ.setdefault('LOCAL_RANK', args[2])


def command_parser(
    docstring: str | None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """Create the parser of a tool, whose help is the tool's docstring."""
    return argparse.ArgumentParser(
        description=docstring,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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
    # torch.distributed.launch gives it in one of these spellings.
    parser.add_argument(
        *('--local_rank', '--local-rank'),
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
