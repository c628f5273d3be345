"""Command-line options and checks that several tools have."""

import argparse
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmdet_longtail.errors import check
from mmdet_longtail.utils.fileio import check_writable


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Append the default of an option to its help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        no_default = ('None', 'False', '[]', '', argparse.SUPPRESS)
        text = action.help or ''
        if str(action.default) in no_default or '(default:' in text:
            return text
        return f'{text} (default: %(default)s)'


class _CfgOptions(argparse.Action):
    """Parse values as mmengine does, which only this option imports."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        from mmengine.config import DictAction

        action = DictAction(self.option_strings, self.dest, nargs='+')
        try:
            action(*args, **kwargs)
        except (AssertionError, ValueError):  # assert: of brackets
            raise argparse.ArgumentError(
                self,
                'expected KEY=VALUE with closed brackets, found '
                f'{" ".join(args[2])}',
            ) from None


class _TrustConfig(argparse.Action):
    """Trust carried configs until the tool ends."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        from mmdet_longtail.structures.carried_config import trust_configs

        trust_configs()


class _LocalRank(argparse.Action):
    """Set the variable that mmengine reads, if it is not set."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        os.environ.setdefault('LOCAL_RANK', args[2])


def command_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Create the parser of a tool, whose help is the tool's docstring."""
    return argparse.ArgumentParser(
        description=docstring, formatter_class=_HelpFormatter
    )


def add_cfg_options(
    parser: argparse.ArgumentParser,
    description: str = 'override keys of the config; '
    'lists as key="[a,b]" or key=a,b',
) -> None:
    """Add ``--cfg-options``, which becomes a dict or None."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_CfgOptions,
        metavar='KEY=VALUE',
        help=description,
    )


def add_cached(parser: argparse.ArgumentParser) -> None:
    """Add ``--cached``."""
    parser.add_argument(
        '--cached',
        action='store_true',
        help='train classifier stages from RoI features that are computed '
        'once (default_hooks.feature_cache.type=FeatureCacheHook, '
        'docs/cached.md)',
    )


def add_search_lr(parser: argparse.ArgumentParser) -> None:
    """Add ``--search-lr`` and ``--held-out``."""
    parser.add_argument(
        '--search-lr',
        nargs='+',
        type=positive_float,
        metavar='LR',
        help='learning rates to try per method: train on a part of the '
        'training images, evaluate on the others, and use the best rate '
        "(default: the config's, docs/two_stage.md)",
    )
    parser.add_argument(
        '--held-out',
        type=fraction,
        default=0.2,
        help='fraction of the training images that --search-lr holds out '
        '(default: %(default)s)',
    )


def add_trust_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-config``, which is no attribute of the arguments."""
    parser.add_argument(
        '--trust-config',
        action=_TrustConfig,
        nargs=0,
        default=argparse.SUPPRESS,
        help='execute the config in a checkpoint like a config file, and '
        'import the modules that it names; for your own files, if their '
        'config is more than literals (docs/security.md)',
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
        '--local_rank',
        '--local-rank',
        action=_LocalRank,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training."""
    add_runner_options(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without one, or with "auto", from '
        'the latest in the work directory, or train from the start',
    )


def add_held_out_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a held-out split of the training set."""
    parser.add_argument(
        '--held-out',
        type=fraction,
        default=0.2,
        help='fraction of the training images to hold out',
    )
    parser.add_argument(
        '--seed', type=random_seed, default=0, help='random seed'
    )


def positive_int(text: str) -> int:
    """Convert an argument to an integer >= 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not at least 1')
    return number


def positive_float(text: str) -> float:
    """Convert an argument to a finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return number


def random_seed(text: str) -> int:
    """Convert an argument to a random seed, as numpy and torch take it."""
    number = int(text)
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f'{text} is not from 0 to 2**32 - 1')
    return number


def fraction(text: str) -> float:
    """Convert an argument to a number between 0 and 1, both exclusive."""
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f'{text} is not between 0 and 1')
    return number


def print_next(*words: object) -> None:
    """Print the command that usually follows, from its words."""
    print(f'next: longtail {" ".join(map(str, words))}')


def check_outputs(
    outputs: Iterable[str | None], inputs: Iterable[str | None]
) -> None:
    """Validate that outputs can be written, each to a file of its own.

    None is no file.

    Raises:
        LongTailError: If an output is an input or another output, or if it
            cannot be written.
    """
    read = {Path(path).resolve() for path in inputs if path is not None}
    written: set[Path] = set()
    for path in filter(None, outputs):
        file = Path(path).resolve()
        check(
            file not in read,
            f'{path}: is read by this command; write to another file',
        )
        check(
            file not in written,
            f'{path}: is given for two outputs; give each a file of its own',
        )
        written.add(file)
        check_writable(path)
