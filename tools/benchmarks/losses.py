"""Time the losses against torch's and mmdet's own.

Forward and backward in one process, the losses in turn, so that a slow moment
of the machine hits all of them; medians, and the peak of the memory that a
loss takes beyond the logits and their gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    EqualizationLoss,
    LongTailLoss,
    SoftmaxEqualizationLoss,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

Call = Callable[[Tensor], Tensor]


def long_tail(num_classes: int) -> ClassStatistics:
    """Counts that fall from 30,000 to 1, as LVIS v1's do."""
    count = np.geomspace(30_000, 1, num_classes).astype(np.int64)
    return ClassStatistics(
        class_names=tuple(map(str, range(num_classes))),
        image_count=count,
        instance_count=count,
        num_images=100_000,
        num_annotated_images=int(count.max()),
    )


def subjects(
    num_rows: int, num_classes: int
) -> dict[str, tuple[int, Call, Call | None]]:
    """Name -> (columns of its logits, loss, activation)."""
    is_foreground = torch.rand(num_rows) < 0.25
    labels = torch.randint(0, num_classes, (num_rows,)).where(
        is_foreground, torch.tensor(num_classes)
    )
    weights = torch.ones(num_rows)
    one_hot = F.one_hot(labels, num_classes + 1)[:, :-1].float()
    ours: dict[str, LongTailLoss] = {
        'EQL': EqualizationLoss(num_classes),
        'EQL, exponential decay': EqualizationLoss(
            num_classes, tail_weight=dict(type='ExponentialTailWeight')
        ),
        'EQL, Gompertz decay': EqualizationLoss(
            num_classes, tail_weight=dict(type='GompertzTailWeight')
        ),
        'SEQL': SoftmaxEqualizationLoss(num_classes),
        'BAGS': BalancedGroupSoftmaxLoss(num_classes),
    }
    for loss in ours.values():
        loss.set_class_statistics(long_tail(num_classes))
    sigmoid = CrossEntropyLoss(use_sigmoid=True)
    seesaw = SeesawLoss(num_classes=num_classes, return_dict=False)

    def call(loss: nn.Module) -> Call:
        def total(logits: Tensor) -> Tensor:
            value = loss(logits, labels, weights, avg_factor=float(num_rows))
            terms = value.values() if isinstance(value, dict) else [value]
            return torch.stack(list(terms)).sum()

        return total

    return {
        'torch cross_entropy': (
            num_classes + 1,
            lambda z: F.cross_entropy(z, labels),
            lambda z: z.softmax(1),
        ),
        'torch BCE': (
            num_classes,
            lambda z: F.binary_cross_entropy_with_logits(z, one_hot),
            None,
        ),
        'mmdet sigmoid CE': (
            num_classes,
            call(sigmoid),
            torch.sigmoid,
        ),
        'mmdet Seesaw': (
            num_classes + 2,
            call(seesaw),
            seesaw.get_activation,
        ),
        **{
            name: (
                loss.get_cls_channels(num_classes),
                call(loss),
                loss.get_activation,
            )
            for name, loss in ours.items()
        },
    }


def time_loss(loss: Call, logits: Tensor) -> float:
    """Seconds of one forward and backward."""
    leaf = logits.clone().requires_grad_()
    start = time.perf_counter()
    loss(leaf).backward()
    return time.perf_counter() - start


def time_activation(activation: Call, logits: Tensor) -> float:
    """Seconds of one activation."""
    start = time.perf_counter()
    activation(logits)
    return time.perf_counter() - start


def peak_memory(loss: Call, logits: Tensor) -> float:
    """Peak of what is allocated, less the gradient, in sizes of logits."""
    leaf = logits.clone().requires_grad_()
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as trace:
        loss(leaf).backward()
    current = peak = 0
    for event in trace.profiler.kineto_results.events():
        if event.name() == '[memory]':
            current += event.nbytes()
            peak = max(peak, current)
    return peak / (logits.numel() * logits.element_size()) - 1


def measure(
    num_rows: int, num_classes: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Medians in milliseconds, and memory, of every subject."""
    torch.manual_seed(0)
    chosen = subjects(num_rows, num_classes)
    logits = {
        name: torch.randn(num_rows, columns)
        for name, (columns, _, _) in chosen.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    active: dict[str, list[float]] = {name: [] for name in chosen}
    console = Console(stderr=True)
    for _ in track(range(repeats), 'training', console=console):
        for name, (_, loss, _) in chosen.items():
            seconds[name].append(time_loss(loss, logits[name]))
    # In a loop of its own: no backward comes in between at test time.
    for _ in track(range(repeats), 'testing', console=console):
        for name, (_, _, activation) in chosen.items():
            if activation is not None:
                with torch.no_grad():
                    active[name].append(
                        time_activation(activation, logits[name])
                    )
    result = {}
    for name, (_, loss, activation) in chosen.items():
        result[name] = {
            'loss_ms': 1e3 * statistics.median(seconds[name]),
            'peak_memory': peak_memory(loss, logits[name]),
        }
        if activation is not None:
            result[name]['activation_ms'] = 1e3 * statistics.median(
                active[name]
            )
    return result


def show(result: dict[str, dict[str, float]], title: str) -> None:
    """Print the table."""
    table = Table(title=title)
    table.add_column('loss')
    for column in (
        'forward + backward, ms',
        'x cross_entropy',
        'x mmdet sigmoid CE',
        'extra memory, x logits',
        'activation, ms',
        'x softmax',
    ):
        table.add_column(column, justify='right')
    softmax = result['torch cross_entropy']
    sigmoid = result['mmdet sigmoid CE']
    for name, row in result.items():
        cells = [
            f'{row["loss_ms"]:.2f}',
            f'{row["loss_ms"] / softmax["loss_ms"]:.2f}',
            f'{row["loss_ms"] / sigmoid["loss_ms"]:.2f}',
            f'{row["peak_memory"]:.2f}',
        ]
        if 'activation_ms' in row:
            ratio = row['activation_ms'] / softmax['activation_ms']
            cells += [f'{row["activation_ms"]:.2f}', f'{ratio:.2f}']
        table.add_row(name, *cells)
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description='Time the losses')
    parser.add_argument(
        '--rows', type=int, default=1024, help='RoIs; default 1024'
    )
    parser.add_argument(
        '--classes', type=int, default=1203, help='classes; default 1203'
    )
    parser.add_argument(
        '--repeats', type=int, default=50, help='of each; default 50'
    )
    parser.add_argument(
        '--threads', type=int, default=1, help="torch's; default 1"
    )
    parser.add_argument('--json', type=Path, help='write the figures here')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.rows, args.classes, args.repeats)
    show(
        result,
        f'{args.rows} RoIs x {args.classes} classes, '
        f'{args.threads} thread(s), torch {torch.__version__}',
    )
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
