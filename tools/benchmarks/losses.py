"""Time the losses against torch's and mmdet's own.

Each loss runs in turn with torch's cross_entropy and with no other loss, as in
a training, and its activation in turn with softmax. Printed are the least
processor times in ms on one thread, or with --device cuda the medians of the
GPU's times, and the peak of the memory that a loss allocates beyond the
logits and their gradient, in multiples of the logits.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss
from timing import Subjects, add_device, benchmark_parser, seconds_on, show
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    BalancedGroupSoftmaxWithoutBackgroundLoss,
    BalancedGroupSoftmaxWithoutOthersLoss,
    BalancedSoftmaxLoss,
    DropLoss,
    EffectiveClassMarginLoss,
    EqualizationLoss,
    EqualizationLossV2,
    EqualizedFocalLoss,
    EqualizedQualityFocalLoss,
    EquilibriumLoss,
    FederatedLoss,
    GumbelDropLoss,
    GumbelEqualizationLoss,
    ReweightedBalancedGroupSoftmaxLoss,
    ReweightedSoftmaxLoss,
    RoIFocalLoss,
    SoftmaxEqualizationLoss,
    SyncSeesawLoss,
    VerifiedFederatedLoss,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

Call = Callable[[Tensor], Tensor]


def subjects(N: int, C: int, device: str) -> list[tuple[str, int, Call, Call]]:
    """Return the name, columns, loss and activation of each subject."""
    is_foreground = torch.rand(N) < 0.25
    labels = torch.randint(0, C, (N,)).where(is_foreground, torch.tensor(C))
    labels = labels.to(device)
    one_hot = F.one_hot(labels, C + 1)[:, :-1].float()
    weights = torch.ones(N, device=device)

    def total(loss: Any, logits: Tensor) -> Tensor:
        value = loss(logits, labels, weights, avg_factor=float(N))
        terms = value.values() if isinstance(value, dict) else [value]
        return torch.stack([*terms]).sum()

    # From 30,000 to 1, as in LVIS v1, in no order of the classes.
    count = np.geomspace(30_000, 1, C).astype(np.int64)
    count = np.random.default_rng(0).permutation(count)
    names = tuple(map(str, range(C)))
    statistics = ClassStatistics(names, count, count, 100_000, 30_000)

    def ours(name: str, loss: Any) -> tuple[str, int, Call, Call]:
        loss.to(device).set_class_statistics(statistics)
        columns = loss.get_cls_channels(C)
        return name, columns, partial(total, loss), loss.get_activation

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels)

    def bce(logits: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, one_hot)

    softmax = partial(F.softmax, dim=1)
    sigmoid_ce = partial(total, CrossEntropyLoss(use_sigmoid=True))
    seesaw = SeesawLoss(num_classes=C, return_dict=False).to(device)
    exponential = dict(type='ExponentialTailWeight')
    gompertz = dict(type='GompertzTailWeight')
    inverse = dict(type='InverseClassWeight')
    return [
        ('torch cross_entropy', C + 1, cross_entropy, softmax),
        ('torch BCE', C, bce, torch.sigmoid),
        ('mmdet sigmoid CE', C, sigmoid_ce, torch.sigmoid),
        ('mmdet Seesaw', C + 2, partial(total, seesaw), seesaw.get_activation),
        ours('EQL', EqualizationLoss(C)),
        ours(
            'EQL, exponential decay',
            EqualizationLoss(C, tail_weight=exponential),
        ),
        ours('EQL, Gompertz decay', EqualizationLoss(C, tail_weight=gompertz)),
        ours('SEQL', SoftmaxEqualizationLoss(C)),
        ours('BAGS', BalancedGroupSoftmaxLoss(C)),
        ours(
            'BAGS without others',
            BalancedGroupSoftmaxWithoutOthersLoss(C),
        ),
        ours(
            'BAGS without background',
            BalancedGroupSoftmaxWithoutBackgroundLoss(C),
        ),
        ours(
            're-weighted BAGS',
            ReweightedBalancedGroupSoftmaxLoss(C, class_weight=inverse),
        ),
        ours(
            're-weighted softmax',
            ReweightedSoftmaxLoss(C, class_weight=inverse),
        ),
        ours('EQLv2', EqualizationLossV2(C)),
        ours('Seesaw', SyncSeesawLoss(C)),
        ours('Balanced Softmax', BalancedSoftmaxLoss(C)),
        ours('EBL', EquilibriumLoss(C)),
        ours('ECM', EffectiveClassMarginLoss(C)),
        ours('federated', FederatedLoss(C)),
        ours('federated, verified classes', VerifiedFederatedLoss(C)),
        ours('DropLoss', DropLoss(C)),
        ours('GOL', GumbelDropLoss(C)),
        ours('Gumbel EQL', GumbelEqualizationLoss(C)),
        ours('focal', RoIFocalLoss(C)),
        ours('EFL', EqualizedFocalLoss(C)),
        ours('EQFL', EqualizedQualityFocalLoss(C)),
    ]


def train(loss: Call, logits: Tensor) -> None:
    """Compute a loss and its gradient."""
    loss(logits.detach().requires_grad_()).backward()


def peak_memory(loss: Call, logits: Tensor) -> float:
    """Return the peak of the allocations but the gradient, x logits."""
    if logits.is_cuda:
        train(loss, logits)  # What the libraries keep is no loss's.
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        train(loss, logits)
        peak = torch.cuda.max_memory_allocated() - before
    else:
        cpu = [ProfilerActivity.CPU]
        with profile(activities=cpu, profile_memory=True) as trace:
            train(loss, logits)
        allocated = [
            event.nbytes()
            for event in trace.profiler.kineto_results.events()
            if event.name() == '[memory]'
        ]
        peak = np.cumsum([0, *allocated]).max()
    return float(peak / (logits.numel() * logits.element_size()) - 1)


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        rows=(1024, 'RoIs'),
        classes=(1203, 'classes'),
        repeats=(50, 'measurements of each'),
    )
    args = add_device(parser).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    everything = subjects(args.rows, args.classes, args.device)
    _, columns, cross_entropy, softmax = everything[0]
    plain = torch.randn(args.rows, columns).to(args.device)

    def measure(pair: Subjects) -> Iterable[float]:
        return seconds_on(args.device, pair, args.repeats).values()

    rows = []
    for name, columns, loss, activation in everything:
        logits = torch.randn(args.rows, columns).to(args.device)
        memory = peak_memory(loss, logits)
        training = [
            ('cross_entropy', partial(train, cross_entropy, plain)),
            (f'{name}, loss', partial(train, loss, logits)),
        ]
        reference, trained = measure(training)
        test = [
            ('softmax', partial(softmax, plain)),
            (f'{name}, activation', partial(activation, logits)),
        ]
        with torch.no_grad():
            softmax_time, tested = measure(test)
        rows.append(
            {
                'loss': name,
                'forward + backward': 1e3 * trained,
                'x cross_entropy': trained / reference,
                'extra memory': memory,
                'activation': 1e3 * tested,
                'x softmax': tested / softmax_time,
            }
        )
    title = f'{args.rows} RoIs x {args.classes} classes, {args.device}'
    show(f'{title}, torch {torch.__version__}', rows, args.json)


if __name__ == '__main__':
    main()
