"""Time the losses against torch's and mmdet's own.

Forward and backward run in one process, one loss after the other, so that a
slow moment of the machine hits all of them. Printed are medians, and the peak
of the memory that a loss allocates beyond the logits and their gradient.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    EqualizationLoss,
    SoftmaxEqualizationLoss,
)
from mmdet_longtail.structures import ClassStatistics

Call = Callable[[Tensor], Tensor]


def long_tail(num_classes: int) -> ClassStatistics:
    """Return counts that fall from 30,000 to 1, as LVIS v1's do."""
    count = np.geomspace(30_000, 1, num_classes).astype(np.int64)
    names = tuple(map(str, range(num_classes)))
    return ClassStatistics(names, count, count, 100_000, 30_000)


def subjects(
    num_rows: int, num_classes: int
) -> dict[str, tuple[int, Call, Call]]:
    """Return the columns, the loss and the activation of each subject."""
    C = num_classes
    is_foreground = torch.rand(num_rows) < 0.25
    labels = torch.randint(0, C, (num_rows,)).where(
        is_foreground, torch.tensor(C)
    )
    weights = torch.ones(num_rows)
    one_hot = F.one_hot(labels, C + 1)[:, :-1].float()

    def call(loss: nn.Module) -> Call:
        def total(logits: Tensor) -> Tensor:
            value = loss(logits, labels, weights, avg_factor=float(num_rows))
            terms = value.values() if isinstance(value, dict) else [value]
            return torch.stack(list(terms)).sum()

        return total

    seesaw = SeesawLoss(num_classes=C, return_dict=False)
    chosen: dict[str, tuple[int, Call, Call]] = {
        'torch cross_entropy': (
            C + 1,
            lambda z: F.cross_entropy(z, labels),
            lambda z: z.softmax(1),
        ),
        'torch BCE': (
            C,
            lambda z: F.binary_cross_entropy_with_logits(z, one_hot),
            torch.sigmoid,
        ),
        'mmdet sigmoid CE': (
            C,
            call(CrossEntropyLoss(use_sigmoid=True)),
            torch.sigmoid,
        ),
        'mmdet Seesaw': (C + 2, call(seesaw), seesaw.get_activation),
    }
    for name, loss in {
        'EQL': EqualizationLoss(C),
        'EQL, exponential decay': EqualizationLoss(
            C, tail_weight=dict(type='ExponentialTailWeight')
        ),
        'EQL, Gompertz decay': EqualizationLoss(
            C, tail_weight=dict(type='GompertzTailWeight')
        ),
        'SEQL': SoftmaxEqualizationLoss(C),
        'BAGS': BalancedGroupSoftmaxLoss(C),
    }.items():
        loss.set_class_statistics(long_tail(C))
        columns = loss.get_cls_channels(C)
        chosen[name] = columns, call(loss), loss.get_activation
    return chosen


def peak_memory(loss: Call, logits: Tensor) -> float:
    """Return the peak of the allocations but the gradient, x logits."""
    z = logits.clone()
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as trace:
        train(loss, z)
    allocated = [
        event.nbytes()
        for event in trace.profiler.kineto_results.events()
        if event.name() == '[memory]'
    ]
    peak = np.cumsum([0, *allocated]).max()
    return float(peak / (logits.numel() * logits.element_size()) - 1)


def train(loss: Call, logits: Tensor) -> None:
    """Go forward and backward."""
    loss(logits.requires_grad_()).backward()


def seconds(function: Callable[..., object], *args: Any) -> float:
    """Return the duration of a call."""
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def measure(
    num_rows: int, num_classes: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Return medians in milliseconds, and memory, of every subject."""
    torch.manual_seed(0)
    chosen = subjects(num_rows, num_classes)
    logits = {
        name: torch.randn(num_rows, columns)
        for name, (columns, _, _) in chosen.items()
    }
    trained: dict[str, list[float]] = {name: [] for name in chosen}
    tested: dict[str, list[float]] = {name: [] for name in chosen}
    console = Console(stderr=True)
    for _ in track(range(repeats), 'training', console=console):
        for name, (_, loss, _) in chosen.items():
            z = logits[name].clone()
            trained[name].append(seconds(train, loss, z))
    # In a loop of its own, since test time has no backward in between.
    with torch.no_grad():
        for _ in track(range(repeats), 'testing', console=console):
            for name, (_, _, activation) in chosen.items():
                tested[name].append(seconds(activation, logits[name]))
    return {
        name: {
            'loss_ms': 1e3 * median(trained[name]),
            'peak_memory': peak_memory(loss, logits[name]),
            'activation_ms': 1e3 * median(tested[name]),
        }
        for name, (_, loss, _) in chosen.items()
    }


def main() -> None:
    """Measure and print."""
    parser = command_parser(__doc__)
    for option, default, text in (
        ('--rows', 1024, 'RoIs'),
        ('--classes', 1203, 'classes'),
        ('--repeats', 50, 'measurements of each'),
        ('--threads', 1, "torch's threads"),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f'{text}; {default}'
        )
    parser.add_argument('--json', type=Path, help='write the figures here')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.rows, args.classes, args.repeats)
    table = Table(
        'loss',
        'forward + backward, ms',
        'x cross_entropy',
        'x mmdet sigmoid CE',
        'extra memory, x logits',
        'activation, ms',
        'x softmax',
        title=f'{args.rows} RoIs x {args.classes} classes, {args.threads} '
        f'thread(s), torch {torch.__version__}',
    )
    softmax, sigmoid = (
        result['torch cross_entropy'],
        result['mmdet sigmoid CE'],
    )
    for name, row in result.items():
        figures = (
            row['loss_ms'],
            row['loss_ms'] / softmax['loss_ms'],
            row['loss_ms'] / sigmoid['loss_ms'],
            row['peak_memory'],
            row['activation_ms'],
            row['activation_ms'] / softmax['activation_ms'],
        )
        table.add_row(name, *(f'{figure:.2f}' for figure in figures))
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()
