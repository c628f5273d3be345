"""Options, data, measurements and output that benchmarks share."""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.tables import make_table

NUM_CLASSES = 1203
NAMES = tuple(f'class_{k}' for k in range(NUM_CLASSES))
OBJECTS = 13  # An image of LVIS v1 has 12.7.
Subjects = Sequence[tuple[str, Callable[[], object]]]


def benchmark_parser(
    docstring: str | None, **numbers: tuple[Any, str]
) -> argparse.ArgumentParser:
    """Create the parser of a benchmark from its docstring.

    ``numbers`` are the default, a number or a list, and the help of options.
    """
    parser = command_parser(docstring)
    for name, (default, text) in numbers.items():
        is_list = isinstance(default, list)
        parser.add_argument(
            '--' + name.replace('_', '-'),
            type=type(default[-1] if is_list else default),
            nargs='+' if is_list else None,
            default=default,
            help=f'{text} (default: %(default)s)',
        )
    parser.add_argument('--json', type=Path, help='write the figures here')
    return parser


def add_device(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option for the device of a benchmark."""
    parser.add_argument(
        '--device',
        choices=('cpu', 'cuda'),
        default='cpu',
        help='cuda takes medians of its events (default: %(default)s)',
    )
    return parser


def cpu_seconds(function: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    """Return the processor time of a call, and its result."""
    start = time.process_time()
    result = function(*args)
    return time.process_time() - start, result


def least_seconds(subjects: Subjects, repeats: int) -> dict[str, float]:
    """Return the least processor time of each subject.

    The subjects run in turn, so that a slow moment affects all of them.
    """
    console = Console(stderr=True)
    names = [name for name, _ in subjects]
    rounds = [
        [cpu_seconds(function)[0] for _, function in subjects]
        for _ in track(range(repeats), ', '.join(names), console=console)
    ]
    return dict(zip(names, map(min, zip(*rounds))))


def median_cuda_seconds(subjects: Subjects, repeats: int) -> dict[str, float]:
    """Return the median time of each subject on the GPU, by its events.

    The subjects run in turn, after a tenth as many rounds of warm-up.
    """
    import torch

    rounds = []
    for index in range(repeats // 10 + 1 + repeats):
        events = []
        for _, function in subjects:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in 'ab')
            start.record()
            function()
            end.record()
            events.append((start, end))
        torch.cuda.synchronize()
        if index > repeats // 10:
            rounds.append([a.elapsed_time(b) / 1e3 for a, b in events])
    names = [name for name, _ in subjects]
    return dict(zip(names, np.median(rounds, axis=0).tolist()))


def seconds_on(
    device: str, subjects: Subjects, repeats: int
) -> dict[str, float]:
    """Measure each subject as its device can: see the two functions."""
    if device == 'cuda':
        return median_cuda_seconds(subjects, repeats)
    return least_seconds(subjects, repeats)


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function of a module in a process that imports the module."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        return pool.submit(function, *args).result()


def memory(key: str) -> int:
    """Return a figure of this process in bytes, such as VmHWM, the peak."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split(f'{key}:')[1].split()[0])


def write_federated_set(
    path: str, num_images: int, size: Sequence[int], corners: int = 10
) -> None:
    """Write annotations like LVIS v1's, whose counts fall as 1 / rank.

    ``size`` is the width and height of the images. Each object is a box, and
    its polygon has ``corners`` points on the border of the box.
    """
    random = np.random.default_rng(0)
    share = 1 / np.arange(1, NUM_CLASSES + 1)
    shape = num_images, OBJECTS
    label = 1 + random.choice(NUM_CLASSES, shape, p=share / share.sum())
    label = label.tolist()
    checked = random.integers(1, NUM_CLASSES, (num_images, 10)).tolist()
    low = random.uniform(0, 0.7, (*shape, 2)) * size
    extent = random.uniform(0.05, 0.3, (*shape, 2)) * size
    boxes = np.concatenate([low, extent], 2).reshape(-1, 4).round(2)
    angle = 2 * np.pi * np.arange(corners) / corners
    unit = np.clip([0.5 + np.cos(angle), 0.5 + np.sin(angle)], 0, 1).T
    polygons = boxes[:, None, :2] + boxes[:, None, 2:] * unit  # (n, P, 2)
    polygons = polygons.reshape(-1, 1, 2 * corners).round(2)
    dataset = {
        'images': [
            dict(
                id=k,
                file_name=f'{k:012}.jpg',
                width=size[0],
                height=size[1],
                neg_category_ids=sorted({*checked[k]} - {*label[k]}),
                not_exhaustive_category_ids=label[k][:1],
            )
            for k in range(num_images)
        ],
        'annotations': [
            dict(
                id=k + 1,  # Evaluators take 0 for no match.
                image_id=k // OBJECTS,
                category_id=label[k // OBJECTS][k % OBJECTS],
                bbox=box,
                area=box[2] * box[3],
                segmentation=polygon.tolist(),
            )
            for k, (box, polygon) in enumerate(zip(boxes.tolist(), polygons))
        ],
        'categories': [
            dict(id=k + 1, name=name, frequency='fcr'[3 * k // NUM_CLASSES])
            for k, name in enumerate(NAMES)
        ],
    }
    Path(path).write_text(json.dumps(dataset))


def show(title: str, rows: Sequence[dict], path: Path | None) -> None:
    """Print rows of figures by column, and write them as JSON."""
    cells = [
        [f'{v:.4g}' if isinstance(v, float) else v for v in row.values()]
        for row in rows
    ]
    table_console().print(make_table(list(rows[0]), cells, title))
    if path is not None:
        write_atomic(path, json.dumps(rows, indent=1) + '\n')
