"""Calibration of a finished classifier: its weights and bias, edited.

Shapes: C classes (foreground only), D columns of ``fc_cls``, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.models.layers import NormedLinear
from mmdet.models.losses import SeesawLoss
from mmengine.config import ConfigDict
from mmengine.fileio import get_local_path
from mmengine.runner import set_random_seed
from torch import Tensor, nn

from mmdet_longtail.apis.edit_classifier import check_new_files
from mmdet_longtail.apis.held_out import MEANS, HeldOutSplit
from mmdet_longtail.apis.trained_detector import TrainedDetector
from mmdet_longtail.errors import check
from mmdet_longtail.models.layers import ScaledLinear, ScaledNormedLinear
from mmdet_longtail.models.losses import (
    LongTailLoss,
    TauNormSelectLoss,
    tau_norm_scale,
)
from mmdet_longtail.models.roi_heads.bbox_heads import (
    NearestClassMeanConvFCBBoxHead,
)
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
    is_softmax,
)
from mmdet_longtail.models.utils.calibration import (
    Calibration,
    fracal,
    logit_adjustment,
    logn,
    norcal,
    tau_norm,
)
from mmdet_longtail.models.utils.classifier_replay import (
    predict_each,
    without_masks,
)
from mmdet_longtail.structures.fractal_dimension import (
    fractal_dimension,
    read_box_centers,
)
from mmdet_longtail.utils.checks import check_choice, check_numbers
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.visualization.classifier import draw_strengths
from mmdet_longtail.visualization.figures import figure_bytes

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
KNOWN = (LongTailLoss, SeesawLoss)
"""Losses whose class c has column c, beside those of a plain softmax."""
WAYS_OUT = {
    ScaledLinear: 'fold its scales in by longtail fold first',
    ScaledNormedLinear: 'calibrate the original detector instead',
}


def calibrate(
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    method: str,
    strength: Sequence[float] = STRENGTHS,
    as_published: bool = False,
    select: bool = False,
    fewer_than: float | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    cfg_options: Mapping[str, Any] | None = None,
) -> None:
    """Calibrate the classifiers of a checkpoint, and write the detector.

    Strength 0 is the detector as it is. Of several strengths, 0 always among
    them, the one with the best AP on a held-out split of the training set is
    taken; the figure of all is written beside the checkpoint, ``out`` in
    .pth, with the suffix .png. The config that tests the result has the
    suffix .py.

    tau-norm has two variants. As published, the mean norm of the classes'
    rows is taken to be 1. A selection keeps the rows, and predicts by
    `TauNormSelectLoss`, of which ``fewer_than`` is an argument. It needs a
    softmax, and no cascade.

    Raises:
        LongTailError: If a file is missing or broken, files do not fit each
            other, an output exists, an argument is out of range, or the
            method does not fit the detector.
    """
    out = check_new_files(out, '.pth', '.py', '.png')
    check_choice('calibrate', 'method', method, *METHODS)
    for value in strength:
        check_numbers('', '[0, 100]', strength=value)
    check(
        select or fewer_than is None,
        '--fewer-than: only --select has tail classes; add --select',
    )
    check(
        method == 'tau-norm' or not (as_published or select),
        f'--method {method}: --as-published and --select are variants of '
        'tau-norm; leave them out',
    )
    detector = TrainedDetector.load(config, checkpoint, cfg_options)
    check_method(detector, method, select)
    model = _build(detector, method, select, fewer_than)
    split = HeldOutSplit(detector, held_out, seed)
    data = _Data(detector, split, model, as_published)
    classifiers = [_Classifier(h) for h in classifier_heads(model).values()]

    def change(strength: float) -> None:
        for stage, classifier in enumerate(classifiers):
            if select:
                classifier.select(strength, as_published)
            else:
                found = METHODS[method](data, classifier, stage, strength)
                classifier.set(found)

    best, figure = strength[0], None
    if len(strength) > 1:
        values = sorted({0.0, *strength})
        best, means = split.choose(
            'strength',
            values,
            partial(predict_each, model, values=values, change=change),
        )
        _print_gain(means[0.0], means[best])
        figure = draw_strengths(method, means, best)
    change(best)
    detector.save(out, model)
    if figure is not None:
        path = out.with_suffix('.png')
        write_atomic(path, figure_bytes(figure, path))


def check_method(
    detector: TrainedDetector, method: str, select: bool = False
) -> None:
    """Check that a method of `METHODS` fits each classifier of a detector.

    Raises:
        LongTailError: Naming what does not.
    """
    heads = classifier_heads(detector.build())
    source = detector.checkpoint.source
    for name, head in heads.items():
        layer, loss = head.fc_cls, head.loss_cls
        owner = f'{source}: {name}'
        kind = f'{owner}.fc_cls is a {type(layer).__name__}'
        check(
            type(layer) in (nn.Linear, NormedLinear),
            f'{kind}, expected Linear or NormedLinear; '
            + WAYS_OUT.get(type(layer), 'this layer is not supported'),
        )
        check(
            method != 'tau-norm' or type(layer) is nn.Linear,
            f'{kind}, whose rows all have the norm 1 already; take another '
            '--method',
        )
        check(
            not isinstance(head, NearestClassMeanConvFCBBoxHead)
            and not isinstance(loss, TauNormSelectLoss)
            and (is_softmax(head) or isinstance(loss, KNOWN)),
            f'{owner}: {type(head).__name__} with {type(loss).__name__} does '
            'not predict by a softmax or sigmoids of fc_cls alone, expected '
            'CrossEntropyLoss, SeesawLoss or a loss of mmdet_longtail',
        )
        check(
            method != 'fracal'
            or not {'sigmoids', 'gumbels'}
            & {*getattr(loss, 'column_blocks', ())},
            f'{owner}: fracal multiplies each probability of '
            f'{type(loss).__name__} by a second one, which no weight and bias '
            'of fc_cls can do; take another --method, or make it a softmax by '
            'longtail convert first',
        )
        check(
            not select or is_softmax(head),
            f'{owner}.fc_cls has {len(layer.weight)} columns for '
            f'{type(loss).__name__}, but --select needs a softmax of '
            f'{head.num_classes + 1}; longtail convert turns other '
            'classifiers into one',
        )
    check(
        not select or len(heads) == 1,
        f'{source}: --select needs the scores of one classifier, but a '
        f'cascade averages those of {len(heads)}; leave it out',
    )


def _build(
    detector: TrainedDetector,
    method: str,
    select: bool,
    fewer_than: float | None,
) -> Any:
    """Build the model, with the bias and scales that a method needs."""
    heads = classifier_heads(detector.build())
    settings = bbox_head_configs(detector.config.model)
    weights = detector.checkpoint.weights
    for name, head in heads.items():
        layer = head.fc_cls
        columns = layer.weight.new_ones(len(layer.weight))
        if select:
            loss = ConfigDict(
                type='TauNormSelectLoss', num_classes=head.num_classes
            )
            if fewer_than is not None:
                loss.fewer_than = fewer_than
            settings[name].loss_cls = loss
            continue
        if layer.bias is None and method != 'tau-norm':
            settings[name].cls_predictor_cfg.bias = True
            weights[f'{name}.fc_cls.bias'] = 0 * columns
        if isinstance(layer, NormedLinear) and method == 'logn':
            settings[name].cls_predictor_cfg.type = 'ScaledNormedLinear'
            weights[f'{name}.fc_cls.scale'] = columns
    return detector.build()


class _Classifier:
    """A classifier as trained, of which the classes' columns change.

    Args:
        head (nn.Module): A bbox head.
    """

    def __init__(self, head: Any) -> None:
        C, layer = head.num_classes, head.fc_cls
        self.head = head
        self.weight = layer.weight[:C].double()  # (C, F)
        self.bias = torch.zeros_like(self.weight[:, 0])  # (C,)
        if layer.bias is not None:
            self.bias = layer.bias[:C].double()
        # A constant that the loss adds to each logit.
        self.prior_logit = getattr(head.loss_cls, 'prior_logit', 0.0)

    def set(self, calibration: Calibration) -> None:
        """Set the columns of which the logits are s z + d."""
        s, d = (x.to(self.bias) for x in calibration)
        layer, C = self.head.fc_cls, len(s)
        if isinstance(layer, ScaledNormedLinear):
            layer.scale[:C] = s
        else:
            layer.weight[:C] = s[:, None] * self.weight
        if layer.bias is not None:
            shift = d + (s - 1) * self.prior_logit
            layer.bias[:C] = s * self.bias + shift

    def select(self, tau: float, as_published: bool) -> None:
        """Set the scale and the bias of `TauNormSelectLoss`."""
        loss = self.head.loss_cls
        loss.scale.copy_(tau_norm_scale(self.weight, tau, as_published))
        loss.bias.copy_(self.bias)


class _Data:
    """What the methods know of the training set, found when it is needed."""

    def __init__(
        self,
        detector: TrainedDetector,
        split: HeldOutSplit,
        model: Any,
        as_published: bool,
    ) -> None:
        assert detector.statistics is not None
        self.statistics = detector.statistics
        self.dataset = detector.dataset
        self.split = split
        self.model = model
        self.as_published = as_published

    @property
    def image_count(self) -> Tensor:
        return torch.tensor(self.statistics.image_count)

    @property
    def instance_count(self) -> Tensor:
        return torch.tensor(self.statistics.instance_count)

    @property
    def image_frequency(self) -> Tensor:
        """That of one image for a class without any."""
        count = self.image_count.double().clamp(min=1)
        return count / self.statistics.num_images

    @cached_property
    def fractal_dimension(self) -> Tensor:
        source = str(self.dataset.ann_file)
        backend = self.dataset.backend_args
        with get_local_path(source, backend_args=backend) as path:
            content = read_json(path)
        places = read_box_centers(content, self.dataset.cat_ids, source)
        return torch.tensor(
            fractal_dimension(*places, self.statistics.num_classes)
        )

    @cached_property
    def logit_moments(self) -> list[tuple[Tensor, Tensor]]:
        """Mean and variance per stage over the RoIs of a training."""
        return measure_logits(self.model, self.split)


def measure_logits(
    model: Any, split: HeldOutSplit
) -> list[tuple[Tensor, Tensor]]:
    """Compute mean and variance (C,) of the classes' logits, per stage.

    The RoIs are those that the detector samples to train on, in the images
    that are not held out.

    Raises:
        LongTailError: If the RoI head needs more than boxes to sample them.
    """
    check(
        not getattr(model.roi_head, 'with_semantic', False),
        f'{split.detector.checkpoint.source}: logn samples RoIs as in a '
        f'training, for which {type(model.roi_head).__name__} needs semantic '
        'maps; take another --method',
    )
    heads = [*classifier_heads(model).values()]
    C = heads[0].num_classes
    sums = [torch.zeros(2, C, dtype=torch.float64) for _ in heads]
    counts = [0] * len(heads)

    def add(stage: int, layer: nn.Module, args: Any, output: Tensor) -> None:
        z = output[:, :C].double()
        z = z + getattr(heads[stage].loss_cls, 'prior_logit', 0.0)
        sums[stage] += torch.stack([z.sum(0), (z**2).sum(0)]).cpu()
        counts[stage] += len(z)

    handles = [
        head.fc_cls.register_forward_hook(partial(add, stage))
        for stage, head in enumerate(heads)
    ]
    set_random_seed(split.seed)
    with without_masks(model):
        for data in split.batches(False, 'Logits'):
            data = model.data_preprocessor(data, training=True)
            model(**data, mode='loss')
    for handle in handles:
        handle.remove()
    moments = []
    for count, (total, squares) in zip(counts, sums):
        mean = total / max(count, 1)
        moments.append((mean, squares / max(count, 1) - mean**2))
    return moments


METHODS: dict[str, Callable[[_Data, _Classifier, int, float], Calibration]] = {
    'norcal': lambda data, _, stage, t: norcal(data.image_count, t),
    'logit-adjustment': lambda data, _, stage, t: logit_adjustment(
        data.instance_count, t
    ),
    'fracal': lambda data, _, stage, t: fracal(
        data.image_frequency, data.fractal_dimension, t
    ),
    'logn': lambda data, _, stage, t: logn(*data.logit_moments[stage], t),
    'tau-norm': lambda data, classifier, stage, t: tau_norm(
        classifier.weight,
        classifier.bias + classifier.prior_logit,
        t,
        data.as_published,
    ),
}
"""Calibration of a stage's classifier by a method, of a strength."""


def _print_gain(before: np.ndarray, after: np.ndarray) -> None:
    """Print the mean APs before and after."""
    pairs = zip(MEANS, before, after)
    changes = [f'{name} {x:.2f} -> {y:.2f}' for name, x, y in pairs]
    print(f'Before and after: {", ".join(changes)}.')
