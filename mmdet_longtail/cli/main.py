"""The command ``longtail``, and the entry of every tool.

A mistake of the user, and a file or disk that the system refuses, end in one
line on stderr and exit status 1. A bug keeps its stack trace.
"""

import ast
import os
import re
import sys
import warnings
from collections.abc import Callable
from contextvars import copy_context
from difflib import get_close_matches
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import mmdet_longtail
from mmdet_longtail.compat import STACK, check_stack
from mmdet_longtail.errors import LongTailError, one_line

TOOLS = Path(mmdet_longtail.__file__).parent / '.mim' / 'tools'
"""Tools of an installed package; a link in an editable installation."""

EDIT_CLASSIFIER = 'model_converters/edit_classifier.py'
"""Tool with a subcommand of the name of each of its commands."""

SECTIONS = {
    'Annotations and result files, without torch and mmdet': {
        'statistics': 'class_statistics.py',
        'evaluate': 'evaluate.py',
        'compare': 'analysis_tools/compare.py',
        'show': 'analysis_tools/show_detections.py',
        'report': 'analysis_tools/report.py',
        'gains': 'analysis_tools/plot_gains.py',
        'ensemble': 'analysis_tools/ensemble.py',
        'score-thresholds': 'analysis_tools/score_thresholds.py',
    },
    'Training': {
        'make-config': 'make_config.py',
        'check': 'check.py',
        'train': 'train.py',
        'test': 'test.py',
        'predict': 'predict.py',
        'two-stage': 'train_two_stage.py',
        'ablate': 'ablate.py',
        'demo': 'demo.py',
    },
    'Trained classifiers': {
        'analyze': 'analysis_tools/analyze_classifier.py',
        'classifier-log': 'analysis_tools/classifier_log.py',
        'calibrate': EDIT_CLASSIFIER,
        'convert': EDIT_CLASSIFIER,
        'nearest-class-mean': EDIT_CLASSIFIER,
        'fold': EDIT_CLASSIFIER,
    },
    'Datasets and pretrained weights': {
        'make-glyphs': 'dataset_converters/make_glyphs.py',
        'clothing-co-parsing': 'dataset_converters/clothing_co_parsing.py',
        'make-coco-lt': 'dataset_converters/make_coco_lt.py',
        'merge': 'dataset_converters/merge_annotations.py',
        'keep-tail': 'dataset_converters/keep_tail.py',
        'mobilenet-v2': 'model_converters/mobilenet_v2.py',
    },
}
"""Tool of each command, by the section of ``longtail --help``."""

COMMANDS = {k: v for section in SECTIONS.values() for k, v in section.items()}


def main() -> NoReturn:
    """Run the tool that the first argument names."""
    run(_main)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a tool and exit with the status that it returns, None for 0."""
    # mmengine imports pkg_resources to find the mmdet:: bases.
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
    # One line, without the line of source code.
    warnings.formatwarning = lambda message, *_, **__: f'warning: {message}\n'
    try:
        # What an option sets in the context ends with the tool.
        sys.exit(copy_context().run(main))
    except LongTailError as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        if isinstance(error, BrokenPipeError):  # such as of `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        where = f'{error.filename}: ' if error.filename else ''
        print(f'error: {where}{error.strerror}', file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:
        name = (error.name or '').partition('.')[0]
        if name in STACK:
            check_stack()
        if name == 'cv2':
            sys.exit(
                'error: cv2 is not installed; it comes with the extra '
                "[glyphs] (pip install 'mmdet_longtail[glyphs]')"
            )
        raise
    except KeyboardInterrupt:
        sys.exit(130)


def _main() -> int | None:
    command, *arguments = sys.argv[1:] or ['']
    if command in ('', '-h', '--help'):
        print(_help())
        return 0 if command else 2
    if command == '--version':
        print(mmdet_longtail.__version__)
        return 0
    if command not in COMMANDS:
        near = ' or '.join(get_close_matches(command, COMMANDS))
        raise LongTailError(
            f'longtail {command}: no such command; '
            f'{near and f"did you mean {near}? "}'
            '`longtail --help` lists all commands'
        )
    # argparse prints it in front of the options.
    sys.argv = [f'longtail {command}', *arguments]
    if COMMANDS[command] == EDIT_CLASSIFIER:
        sys.argv = ['longtail', command, *arguments]
    return import_tool(TOOLS / COMMANDS[command]).main()


def import_tool(path: Path) -> ModuleType:
    """Import the file of a tool, which is in no package, as a module."""
    spec = spec_from_file_location(f'longtail_{path.stem}', path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _help() -> str:
    lines = [
        'usage: longtail COMMAND [options]',
        '',
        'The long-tail toolbox for MMDetection 3.x; `longtail COMMAND --help` '
        'lists the options.',
    ]
    for section, commands in SECTIONS.items():
        lines += ['', f'{section}:']
        for command, tool in commands.items():
            tree = ast.parse((TOOLS / tool).read_text())
            docstring = ast.get_docstring(tree) or ''
            summary = docstring.partition('\n')[0]
            if tool == EDIT_CLASSIFIER:
                [summary] = re.findall(rf'^ +{command} +(.*)', docstring, re.M)
            lines.append(f'  {command:<20} {summary}')
    return '\n'.join(lines)
