"""Classifiers of trained detectors, edited without training.

Shapes: C classes (foreground only), F features.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, get_box_tensor
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmdet_longtail.apis.held_out import HeldOutSplit
from mmdet_longtail.apis.runner import load_config
from mmdet_longtail.apis.trained_detector import TrainedDetector
from mmdet_longtail.errors import check
from mmdet_longtail.models.layers import ScaledLinear
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
    is_softmax,
)
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint
from mmdet_longtail.structures.class_statistics import FORMAT, ClassStatistics
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.fileio import check_writable, read_json
from mmdet_longtail.utils.registry import type_name

TEMPERATURES = (5.0, 10.0, 20.0, 40.0, 80.0)


def convert(
    checkpoint: str,
    config: str,
    out: str,
    source: str = 'auto',
    class_statistics: str | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> None:
    """Convert the classifiers of a checkpoint to the losses of a config.

    The box classifier of the result has the columns of the losses in the
    config. Rows of the classes are kept where the two layouts allow it. The
    result is a checkpoint to begin with: load_from for a training, or a test.
    The counts are those of a file of class statistics or annotations, by
    default those in the checkpoint.

    Raises:
        LongTailError: If a file is broken, or see `convert_checkpoint`.
    """
    check_new_files(out, '.pth')
    target = load_config(config, cfg_options)
    init_default_scope(target.get('default_scope', 'mmdet'))
    loaded = Checkpoint.load(checkpoint)
    statistics = None
    if class_statistics is not None:
        content = read_json(class_statistics)
        if isinstance(content, dict) and content.get('format') == FORMAT:
            statistics = ClassStatistics.load(class_statistics)
        else:
            statistics = ClassStatistics.from_annotation_file(class_statistics)
    converted = convert_checkpoint(loaded, target, source, statistics)
    converted.save(out)
    path = Path(out).resolve()
    print(f'Wrote {out}. Train it, or test it as it is:')
    print(f'  longtail train {config} --cfg-options load_from={path}')
    if converted.class_statistics is not None:
        print(f'  longtail test {config} {out}')


def edit_classifier(
    method: Callable[..., nn.Module],
    config: str | Path,
    checkpoint: str | Path,
    out: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Edit the classifiers of a checkpoint, and write the detector.

    The method is `nearest_class_mean` or `fold_weight_scaling`, and the
    options are its arguments. The config gives the data. The config that
    tests the result, ``out`` in .pth, is written beside it, with the suffix
    .py.

    Raises:
        LongTailError: If a file is missing or broken, files do not fit each
            other, the output exists, or the method does not fit the detector.
    """
    out = check_new_files(out, '.pth', '.py')
    detector = TrainedDetector.load(config, checkpoint, cfg_options)
    detector.save(out, method(detector, **options))


def check_new_files(out: str | Path, *suffixes: str) -> Path:
    """Check that no file of a name with one of the suffixes exists.

    The name has the first suffix, and the files can be written.

    Raises:
        LongTailError: If one exists or cannot be written, or the name has
            another suffix.
    """
    out, suffix = Path(out), suffixes[0]
    check(
        out.suffix == suffix, f'{out}: expected a name that ends in {suffix}'
    )
    for path in map(out.with_suffix, suffixes):
        check(
            not path.exists(),
            f'{path}: exists already; remove it, or give another name',
        )
        check_writable(path)
    return out


def nearest_class_mean(
    detector: TrainedDetector,
    feature: str = 'fc',
    temperature: Sequence[float] = TEMPERATURES,
    held_out: float = 0.2,
    seed: int = 0,
) -> nn.Module:
    """Classify RoIs by the nearest mean feature of a class (NCM).

    The mean of a class is taken over the features of its ground-truth boxes
    in the training set, without augmentation. A RoI's probability of a class
    is a softmax over classes of temperature times cosine, times 1 - p_bg,
    where p_bg is the background probability of the detector's own softmax.
    Of several temperatures, the one with the best AP on a held-out split of
    the training set is taken, with the means of the other images.

    The feature 'fc' is the last shared fc's output before its ReLU, 'conv'
    the flattened RoI feature.

    Raises:
        LongTailError: If an argument is out of range, or the classifier or
            its head is another one.
    """
    for value in temperature:
        check_numbers('', '(0, inf)', temperature=value)
    _check_classifiers(detector, detector.build())
    settings = bbox_head_configs(detector.config.model).values()
    for head in settings:
        name = type_name(head)
        kind = f'NearestClassMean{name.removeprefix("LongTail")}'
        check(
            MODELS.get(kind),
            f'{detector.checkpoint.source}: its bbox head is a {name}, '
            'expected a Shared2FCBBoxHead, Shared4Conv1FCBBoxHead or '
            'ConvFCBBoxHead',
        )
        head.update(
            type=kind,
            feature=feature,
            temperature=temperature[0],
            loss_cls=ConfigDict(type='CrossEntropyLoss', use_sigmoid=False),
        )
    model = detector.build()
    heads = classifier_heads(model).values()
    split = HeldOutSplit(detector, held_out, seed)
    sums = [
        _class_sums(model, split.batches(is_held_out, text))
        for is_held_out, text in ((False, 'Means'), (True, 'Held-out means'))
    ]

    def change(temperature: float) -> None:
        for head in [*heads, *settings]:
            head.temperature = temperature

    # The cosine ignores lengths: unit length suits single precision.
    for head, of_kept in zip(heads, sums[0]):
        head.class_means.copy_(F.normalize(of_kept))
    values = sorted({*temperature})

    def predict(data: Any) -> Iterator[list[DetDataSample]]:
        for value in values:
            change(value)
            yield model.test_step(data)

    best = values[0]
    if len(values) > 1:
        best, _ = split.choose('temperature', values, predict)
    change(best)
    for head, *parts in zip(heads, *sums):
        head.class_means.copy_(F.normalize(sum(parts)))
    return model


def _class_sums(model: Any, batches: Iterable[Any]) -> list[Tensor]:
    """Sum the features of ground-truth boxes per class; (C, F) per stage."""
    roi_head = model.roi_head
    heads = classifier_heads(model).values()
    sums = [head.class_means.double().zero_() for head in heads]
    for data in batches:
        data = model.data_preprocessor(data)
        truths = [sample.gt_instances for sample in data['data_samples']]
        rois = bbox2roi([get_box_tensor(truth.bboxes) for truth in truths])
        labels = torch.cat([truth.labels for truth in truths])
        x = model.extract_feat(data['inputs'])
        semantic = {}
        if getattr(roi_head, 'with_semantic', False):
            semantic['semantic_feat'] = roi_head.semantic_head(x)[1]
        for stage, (head, total) in enumerate(zip(heads, sums)):
            inputs = (stage, x) if hasattr(roi_head, 'num_stages') else (x,)
            roi_head._bbox_forward(*inputs, rois, **semantic)
            total.index_add_(0, labels, head.roi_feature.double())
    return sums


def fold_weight_scaling(detector: TrainedDetector) -> nn.Module:
    """Fold the learned scales of a classifier (LWS) into its rows.

    The checkpoint was trained with cls_predictor_cfg=dict(
    type='ScaledLinear'), z_c = s_c (w_c . x) + b_c. Each row, background's
    too, becomes s_c w_c of a plain linear layer with the same predictions.

    Raises:
        LongTailError: If a classifier has no scales.
    """
    weights = detector.checkpoint.weights
    for name, head in classifier_heads(detector.build()).items():
        layer = head.fc_cls
        check(
            isinstance(layer, ScaledLinear),
            f'{detector.checkpoint.source}: {name}.fc_cls is a '
            f'{type(layer).__name__}, expected a ScaledLinear: there are no '
            'scales to fold',
        )
        weights[f'{name}.fc_cls.weight'] = layer.weight * layer.scale[:, None]
        del weights[f'{name}.fc_cls.scale']
    for settings in bbox_head_configs(detector.config.model).values():
        del settings['cls_predictor_cfg']
    return detector.build()


def _check_classifiers(detector: TrainedDetector, model: nn.Module) -> None:
    """Check that each classifier is linear, and a softmax."""
    for name, head in classifier_heads(model).items():
        layer, C = head.fc_cls, head.num_classes
        owner = f'{detector.checkpoint.source}: {name}.fc_cls'
        check(
            is_softmax(head),
            f'{owner} has {len(layer.weight)} columns for '
            f'{type(head.loss_cls).__name__}, expected a softmax of {C + 1}, '
            'background last; longtail convert turns other classifiers into '
            'one',
        )
        way_out = 'this layer is not supported'
        if isinstance(layer, ScaledLinear):
            way_out = 'fold its scales in by longtail fold first'
        check(
            type(layer) is nn.Linear,
            f'{owner} is a {type(layer).__name__}, expected Linear; {way_out}',
        )
