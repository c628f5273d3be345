"""Train softmax, EQL and BAGS on a long tail and compare them.

    python tools/demo.py

Generates the data, trains a detector with softmax, trains its classifier
again with EQL and with BAGS, prints a table and writes report.html. The same
command goes on after an interruption: what is finished is kept.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    from mmdet_longtail.command_line import last_checkpoint, load_config, run
except ImportError as error:
    sys.exit(f'error: {error}')
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

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
ITERATION = re.compile(
    r'Epoch\((train|val)\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\](?:.*eta: ([\d:]+))?'
)
NUM_LAST_LINES = 15

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


def duration(start: float) -> str:
    """Give the time since then as minutes and seconds."""
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    return f'{minutes}:{seconds:02} min'


@contextmanager
def started(command: list[str], **kwargs: Any) -> Iterator[subprocess.Popen]:
    """Run another tool, which does not outlive this one."""
    with subprocess.Popen([sys.executable, *command], **kwargs) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


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
        LongTailError: If the training fails; its last lines are printed.
    """
    folder = work_dir / config.stem
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / 'log.txt'
    num_epochs = load_config(config).train_cfg.max_epochs
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
    progress = Progress(
        TextColumn('      {task.description}'),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    lines: list[str] = []
    with (
        log_path.open('a') as log,
        progress,
        started(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        task = progress.add_task('starting', total=num_epochs)
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
            lines = [*lines[1 - NUM_LAST_LINES :], line]
            match = ITERATION.search(line)
            if match is None:
                continue
            split, epoch, iteration, last, eta = match.groups()
            done = int(iteration) / int(last)
            if split == 'train':
                progress.update(
                    task,
                    completed=int(epoch) - 1 + done,
                    description=f'epoch {epoch} of {num_epochs}, {eta} left',
                )
            else:
                progress.update(
                    task, description=f'evaluating, {100 * done:.0f} %'
                )
    if process.returncode != 0:
        print(*lines, sep='', file=sys.stderr)
        raise LongTailError(
            f'training of {name} failed with exit status '
            f'{process.returncode}, all that it said is in '
            f'{log_path.absolute()}'
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
            run_tool('make_glyphs.py', '--out', str(data_root))
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
                console.print(
                    f'      {duration(step_start)}, log in {folder}/log.txt'
                )
            results[name] = json.loads(metrics.read_text())
        console.print(f'\\[{num_steps}/{num_steps}] report')
        run_tool(
            'report.py',
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
    console.print(f'[bold]{report}[/] shows more ({duration(start)}).')


if __name__ == '__main__':
    run(main)
