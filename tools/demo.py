"""Train softmax, EQL and BAGS on a long tail and compare them.

    python tools/demo.py

Generates the data, trains a detector with softmax, trains its classifier
again with EQL and with BAGS, prints a table and writes report.html. The same
command goes on after an interruption: what is finished is kept.
"""

import argparse
import json
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
from mmdet_longtail.apis.runner import last_checkpoint, load_config
from mmdet_longtail.cli.main import run
from mmdet_longtail.errors import LongTailError

TOOLS = Path(__file__).resolve().parent
GLYPHS = TOOLS.parent / 'configs' / 'glyphs'
NAMES = ('softmax', 'EQL', 'BAGS')
CONFIGS = (
    GLYPHS / 'faster-rcnn_r18_fpn_softmax_glyphs.py',
    GLYPHS / 'faster-rcnn_r18_fpn_eql-classifier_glyphs.py',
    GLYPHS / 'faster-rcnn_r18_fpn_bags-classifier_glyphs.py',
)
COLUMNS = ('AP', 'APr', 'APc', 'APf')

console = Console(highlight=False, soft_wrap=True)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs',
        help='gets a directory for each training, and report.html '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--data-root',
        default='data/glyphs',
        help='where the data is, or is generated (default: %(default)s)',
    )
    parser.add_argument(
        '--configs',
        nargs=len(NAMES),
        metavar=tuple(name.upper() for name in NAMES),
        default=CONFIGS,
        help='configs of the three detectors (default: those in %(default)s)',
    )
    return parser.parse_args()


def run_tool(name: str, *arguments: str) -> None:
    """Run a tool that shows its own progress.

    Raises:
        LongTailError: If it fails; it has said why.
    """
    with started([str(TOOLS / name), *arguments]) as process:
        status = process.wait()
    if status != 0:
        raise LongTailError(f'tools/{name} failed with exit status {status}')


def overrides(config: Path, work_dir: Path, data_root: Path) -> list[str]:
    """List what a training is told beside its config.

    Raises:
        LongTailError: If the detector that it starts from is not trained.
    """
    options = [
        f'{split}_dataloader.dataset.data_root={data_root}'
        for split in ('train', 'val', 'test')
    ]
    ann_file = data_root / 'annotations' / 'val.json'
    options += [
        f'{split}_evaluator.ann_file={ann_file}' for split in ('val', 'test')
    ]
    base_config = load_config(config).get('base_config')
    if base_config is not None:
        base = last_checkpoint(work_dir / Path(base_config).stem)
        options.append(f'load_from={base}')
    return options


def train(name: str, config: Path, work_dir: Path, data_root: Path) -> None:
    """Train a detector, and show how far it is.

    Raises:
        LongTailError: If the training fails.
    """
    folder = work_dir / config.stem
    command = [
        str(TOOLS / 'train.py'),
        str(config),
        '--work-dir',
        str(folder),
        '--resume',
        'auto',
        '--cfg-options',
        *overrides(config, work_dir, data_root),
    ]
    run_with_progress(
        command,
        f'training of {name}',
        folder / 'log.txt',
        console,
    )


def print_results(results: dict[str, dict[str, float]]) -> None:
    """Print the AP of all classes and of each group in per cent."""
    table = Table(title='glyphs, AP in %', box=box.SIMPLE)
    table.add_column('detector')
    for column in COLUMNS:
        table.add_column(column, justify='right')
    for name, metrics in results.items():
        values = [metrics[f'frequency_group/bbox_{c}'] for c in COLUMNS]
        table.add_row(
            name, *('-' if v == -1 else f'{100 * v:.1f}' for v in values)
        )
    console.print(table)


def main() -> None:
    """Do what is not done yet, then compare."""
    args = parse_args()
    start = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work_dir, data_root = Path(args.work_dir), Path(args.data_root)
    configs = [Path(config) for config in args.configs]
    num_steps = len(configs) + 2
    try:
        console.print(f'\\[1/{num_steps}] data in {data_root}')
        # The set appears in one piece, so a part of it is all of it.
        if not (data_root / 'annotations').is_dir():
            run_tool(
                'dataset_converters/make_glyphs.py', '--out', str(data_root)
            )
        results = {}
        for step, (name, config) in enumerate(zip(NAMES, configs), 2):
            folder = work_dir / config.stem
            metrics = folder / 'metrics.json'
            console.print(f'\\[{step}/{num_steps}] {name}: {config.name}')
            if metrics.is_file():
                console.print(f'      finished before, {metrics}')
            else:
                step_start = time.monotonic()
                train(name, config, work_dir, data_root)
                seconds = time.monotonic() - step_start
                console.print(
                    f'      {duration(seconds)}, log in {folder}/log.txt'
                )
            results[name] = json.loads(metrics.read_text())
        console.print(f'\\[{num_steps}/{num_steps}] report')
        run_tool(
            'analysis_tools/report.py',
            *(str(work_dir / config.stem) for config in configs),
            '--names',
            *NAMES,
            '--out',
            str(work_dir / 'report.html'),
        )
    except KeyboardInterrupt:
        console.print('\nInterrupted; the same command goes on from here.')
        raise
    print_results(results)
    report = (work_dir / 'report.html').absolute()
    seconds = time.monotonic() - start
    console.print(f'[bold]{report}[/] shows more ({duration(seconds)}).')


if __name__ == '__main__':
    run(main)
