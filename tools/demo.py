"""Train softmax, EQL and BAGS on a long tail and compare them.

    python tools/demo.py

Generates the dataset, trains a detector with softmax, retrains its classifier
with EQL and with BAGS, prints a table and writes report.html. The same
command resumes after an interruption.
"""

import argparse
import functools
import signal
import time
from pathlib import Path
from typing import IO

from rich.console import Console

from mmdet_longtail.apis.processes import (
    TOOLS,
    duration,
    exclusive,
    run_with_progress,
    started,
    train_command,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.errors import check
from mmdet_longtail.utils.fileio import read_json
from mmdet_longtail.utils.tables import make_table

NAMES = ('softmax', 'EQL', 'BAGS')
CONFIGS = [
    TOOLS.parent / f'configs/glyphs/faster-rcnn_r18_fpn_{name}_glyphs.py'
    for name in ('softmax', 'eql-classifier', 'bags-classifier')
]
COLUMNS = ('AP', 'APr', 'APc', 'APf')

console = Console(highlight=False, soft_wrap=True, markup=False)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add = functools.partial(parser.add_argument, type=Path)
    add(
        '--work-dir',
        default='work_dirs',
        help='folder for a directory per training, and report.html '
        '(default: %(default)s)',
    )
    add(
        '--data-root',
        default='data/glyphs',
        help='dataset, generated if missing (default: %(default)s)',
    )
    add(
        '--configs',
        nargs=len(NAMES),
        metavar=tuple(map(str.upper, NAMES)),
        default=CONFIGS,
        help="configs of the three detectors (default: this repository's)",
    )
    return parser.parse_args()


def run_tool(name: str, *arguments: object) -> None:
    """Run a tool that prints its own progress and errors."""
    with started([str(TOOLS / name), *map(str, arguments)]) as process:
        status = process.wait()
    check(status == 0, f'tools/{name} failed with exit status {status}')


def train(name: str, config: Path, args: argparse.Namespace, lock: IO) -> None:
    """Train a detector unless it is finished."""
    folder = args.work_dir / config.stem
    if (folder / 'metrics.json').exists():
        console.print(f'      finished before, {folder}/metrics.json')
        return
    data = args.data_root
    options = [
        f'{split}_dataloader.dataset.data_root={data}'
        for split in ('train', 'val', 'test')
    ]
    options += [
        f'{split}_evaluator.ann_file={data}/annotations/val.json'
        for split in ('val', 'test')
    ]
    base = args.configs[0]
    if config != base:
        options.append(f'load_from={args.work_dir / base.stem}')
    command = train_command(config, folder, '--cfg-options', *options)
    log = folder / 'log.txt'
    what = f'training of {name}'
    console.print(f'      {what}, log in {log}')
    seconds = run_with_progress(command, what, log, console, lock)
    console.print(f'      {duration(seconds)}')


def main() -> None:
    """Do the unfinished steps, then compare."""
    args = parse_args()
    for config in args.configs:
        check(config.is_file(), f'{config}: no such config; check the path')
    names = [config.stem for config in args.configs]
    check(
        len({*names}) == len(names),
        f'--configs: expected files of three names, found {", ".join(names)}',
    )
    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folders = [args.work_dir / config.stem for config in args.configs]
    report = args.work_dir.absolute() / 'report.html'
    with exclusive(args.work_dir) as lock:
        console.print(f'[1/5] dataset in {args.data_root}')
        # The generator writes it atomically.
        if not (args.data_root / 'annotations').is_dir():
            glyphs = 'dataset_converters/make_glyphs.py'
            run_tool(glyphs, '--out', args.data_root)
        for step, (name, config) in enumerate(zip(NAMES, args.configs), 2):
            console.print(f'[{step}/5] {name}: {config.name}')
            train(name, config, args, lock)
        console.print('[5/5] report')
        # This command has trained these checkpoints.
        options = ['--names', *NAMES, '--out', report, '--trust-config']
        run_tool('analysis_tools/report.py', *folders, *options)
    rows = []
    for name, folder in zip(NAMES, folders):
        metrics = read_json(folder / 'metrics.json')
        values = [metrics[f'frequency_group/bbox_{c}'] for c in COLUMNS]
        cells = ('-' if v == -1 else f'{100 * v:.1f}' for v in values)
        rows.append((name, *cells))
    title = 'glyphs, AP in %'
    console.print(make_table(('detector', *COLUMNS), rows, title))
    seconds = time.monotonic() - start
    console.print(f'{report} shows more ({duration(seconds)}).')


if __name__ == '__main__':
    run(main)
