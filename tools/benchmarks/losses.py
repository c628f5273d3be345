"""Time the losses against torch's and mmdet's own.

Forward and backward run in one process, one loss after the other, so that a
slow moment of the machine hits all of them. Printed are medians, and the peak
of the memory that a loss allocates beyond the logits and their gradient.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss
from timing import (
    benchmark_parser,
    long_tailed_statistics,
    seconds_in_turn,
    show,
)
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    EqualizationLoss,
    SoftmaxEqualizationLoss,
)

Call = Callable[[Tensor], Tensor]


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
        loss.set_class_statistics(long_tailed_statistics(C))
        columns = loss.get_cls_channels(C)
        chosen[name] = columns, call(loss), loss.get_activation
    return chosen


def train(loss: Call, logits: Tensor) -> None:
    """Compute a loss and its gradient."""
    loss(logits.detach().requires_grad_()).backward()


def peak_memory(loss: Call, logits: Tensor) -> float:
    """Return the peak of the allocations but the gradient, x logits."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True
    ) as trace:
        train(loss, logits)
    allocated = [
        event.nbytes()
        for event in trace.profiler.kineto_results.events()
        if event.name() == '[memory]'
    ]
    peak = np.cumsum([0, *allocated]).max()
    return float(peak / (logits.numel() * logits.element_size()) - 1)


def measure(
    num_rows: int, num_classes: int, repeats: int
) -> dict[str, dict[str, float]]:
    """Return medians in milliseconds, and memory, of every subject."""
    torch.manual_seed(0)
    training, test, memory = {}, {}, {}
    for name, (columns, loss, activation) in subjects(
        num_rows, num_classes
    ).items():
        logits = torch.randn(num_rows, columns)
        training[name] = partial(train, loss, logits)
        test[name] = partial(activation, logits)
        memory[name] = peak_memory(loss, logits)
    trained = seconds_in_turn(training, repeats, time.perf_counter)
    # In a loop of its own, since test time has no backward in between.
    with torch.no_grad():
        tested = seconds_in_turn(test, repeats, time.perf_counter)
    return {
        name: {
            'loss_ms': 1e3 * median(trained[name]),
            'peak_memory': memory[name],
            'activation_ms': 1e3 * median(tested[name]),
        }
        for name in memory
    }


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        rows=(1024, 'RoIs'),
        classes=(1203, 'classes'),
        repeats=(50, 'measurements of each'),
        threads=(1, "torch's threads"),
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = measure(args.rows, args.classes, args.repeats)
    softmax = result['torch cross_entropy']
    sigmoid = result['mmdet sigmoid CE']
    rows = []
    for name, row in result.items():
        loss, activation = row['loss_ms'], row['activation_ms']
        figures = {
            'forward + backward, ms': loss,
            'x cross_entropy': loss / softmax['loss_ms'],
            'x mmdet sigmoid CE': loss / sigmoid['loss_ms'],
            'extra memory, x logits': row['peak_memory'],
            'activation, ms': activation,
            'x softmax': activation / softmax['activation_ms'],
        }
        rows.append(
            {'loss': name} | {k: f'{v:.2f}' for k, v in figures.items()}
        )
    show(
        f'{args.rows} RoIs x {args.classes} classes, {args.threads} '
        f'thread(s), torch {torch.__version__}',
        rows,
        result,
        args.json,
    )


if __name__ == '__main__':
    main()
