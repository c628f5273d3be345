"""Train softmax, EQL and BAGS on a long tail and compare them.

    python tools/demo.py

Generates the dataset, trains a detector with softmax, retrains its classifier
with EQL and with BAGS, prints a table and writes report.html. The same
command resumes after an interruption.
"""

import argparse
import signal
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.apis.processes import (
    duration,
    run_with_progress,
    started,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import read_json

TOOLS = Path(__file__).resolve().parent
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
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs'),
        help='gets a directory per training, and report.html '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--data-root',
        type=Path,
        default=Path('data/glyphs'),
        help='dataset, generated if missing (default: %(default)s)',
    )
    parser.add_argument(
        '--configs',
        nargs=len(NAMES),
        metavar=tuple(name.upper() for name in NAMES),
        type=Path,
        default=CONFIGS,
        help="configs of the three detectors (default: this repository's)",
    )
    return parser.parse_args()


def run_tool(name: str, *arguments: str) -> None:
    """Run a tool that prints its own progress and errors.

    Raises:
        LongTailError: If the tool fails.
    """
    with started([str(TOOLS / name), *arguments]) as process:
        status = process.wait()
    if status != 0:
        raise LongTailError(f'tools/{name} failed with exit status {status}')


def train(name: str, config: Path, work_dir: Path, data_root: Path) -> None:
    """Train a detector unless it is finished.

    Raises:
        LongTailError: If the training fails.
    """
    from mmdet_longtail.apis.runner import load_config

    folder = work_dir / config.stem
    if (folder / 'metrics.json').exists():
        console.print(f'      finished before, {folder}/metrics.json')
        return
    start = time.monotonic()
    ann_file = data_root / 'annotations' / 'val.json'
    options = []
    for split in ('train', 'val', 'test'):
        options.append(f'{split}_dataloader.dataset.data_root={data_root}')
        if split != 'train':
            options.append(f'{split}_evaluator.ann_file={ann_file}')
    base_config = load_config(config).get('base_config')
    if base_config is not None:
        options.append(f'load_from={work_dir / Path(base_config).stem}')
    command = [str(TOOLS / 'train.py'), str(config), '--work-dir', str(folder)]
    run_with_progress(
        [*command, '--resume', 'auto', '--cfg-options', *options],
        f'training of {name}',
        folder / 'log.txt',
        console,
    )
    seconds = time.monotonic() - start
    console.print(f'      {duration(seconds)}, log in {folder}/log.txt')


def main() -> None:
    """Do the unfinished steps, then compare."""
    args = parse_args()
    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folders = [args.work_dir / config.stem for config in args.configs]
    report = args.work_dir.absolute() / 'report.html'
    try:
        console.print(f'[1/5] dataset in {args.data_root}')
        # The generator writes it atomically.
        if not (args.data_root / 'annotations').is_dir():
            glyphs = 'dataset_converters/make_glyphs.py'
            run_tool(glyphs, '--out', str(args.data_root))
        for step, (name, config) in enumerate(zip(NAMES, args.configs), 2):
            console.print(f'[{step}/5] {name}: {config.name}')
            train(name, config, args.work_dir, args.data_root)
        console.print('[5/5] report')
        options = ['--names', *NAMES, '--out', str(report)]
        run_tool('analysis_tools/report.py', *map(str, folders), *options)
    except KeyboardInterrupt:
        console.print('\nInterrupted; the same command resumes.')
        raise
    table = Table('detector', title='glyphs, AP in %', box=box.SIMPLE)
    for column in COLUMNS:
        table.add_column(column, justify='right')
    for name, folder in zip(NAMES, folders):
        metrics = read_json(folder / 'metrics.json')
        values = [metrics[f'frequency_group/bbox_{c}'] for c in COLUMNS]
        table.add_row(
            name, *('-' if v == -1 else f'{100 * v:.1f}' for v in values)
        )
    console.print(table)
    seconds = time.monotonic() - start
    console.print(f'{report} shows more ({duration(seconds)}).')


if __name__ == '__main__':
    run(main)
