r"""Classify RoIs by the nearest mean feature of a class (NCM).

    longtail nearest-class-mean CONFIG CHECKPOINT OUT.pth
    longtail nearest-class-mean CONFIG CHECKPOINT OUT.pth \
        --feature conv --temperature 20

The mean of a class is taken over the features of its ground-truth boxes in
the training set, without augmentation. A RoI's probability of a class is a
softmax over classes of temperature times cosine, times 1 - p_bg, where p_bg
is the background probability of the detector's own softmax. Nothing is
trained. Of several temperatures, the one with the best AP on a part of the
training set is taken, with means of the other part. Writes OUT.pth, and
beside it OUT.py, the config that tests it.
"""

import argparse
import math
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi, get_box_tensor
from mmengine.config import ConfigDict
from torch import Tensor

from mmdet_longtail.apis.held_out import (
    Parts,
    progress,
    split_training_set,
)
from mmdet_longtail.apis.trained_detector import (
    TrainedDetector,
    add_arguments,
    check_softmax,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_held_out_options, command_parser
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.roi_heads.bbox_heads.class_mean_bbox_head import (
    FEATURES,
)
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
)

TEMPERATURES = (5.0, 10.0, 20.0, 40.0, 80.0)


def above_zero(text: str) -> float:
    """Read a number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not above 0')
    return number


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    add_arguments(parser)
    parser.add_argument(
        '--feature',
        choices=FEATURES,
        default='fc',
        help="fc: the last shared fc's output before its ReLU; conv: the "
        'flattened RoI feature (default: fc)',
    )
    parser.add_argument(
        '--temperature',
        type=above_zero,
        nargs='+',
        default=TEMPERATURES,
        help='factor of the cosines (default: the best of 5 10 20 40 80)',
    )
    add_held_out_options(parser)
    return parser.parse_args()


def put_class_means(
    detector: TrainedDetector, feature: str, temperature: float
) -> None:
    """Set heads that classify by class means.

    Raises:
        LongTailError: If there is no such head for one of them.
    """
    for settings in bbox_head_configs(detector.config.model).values():
        base = settings.type.removeprefix('LongTail')
        kind = f'NearestClassMean{base}'
        if MODELS.get(kind) is None:
            raise LongTailError(
                f'{detector.path}: its bbox head is a {settings.type}, '
                'expected a Shared2FCBBoxHead, Shared4Conv1FCBBoxHead or '
                'ConvFCBBoxHead'
            )
        settings.update(
            type=kind,
            feature=feature,
            temperature=temperature,
            loss_cls=ConfigDict(type='CrossEntropyLoss', use_sigmoid=False),
        )


def look_at(model: Any, data: dict) -> tuple[list[Tensor], Tensor]:
    """Features of ground-truth boxes.

    Args:
        model (nn.Module): The detector.
        data (dict): A batch with boxes.

    Returns:
        tuple[list[Tensor], Tensor]: Features (N, F), one for each stage, and
        labels (N,).
    """
    data = model.data_preprocessor(data)
    truths = [sample.gt_instances for sample in data['data_samples']]
    rois = bbox2roi([get_box_tensor(truth.bboxes) for truth in truths])
    labels = torch.cat([truth.labels for truth in truths])
    x = model.extract_feat(data['inputs'])
    roi_head = model.roi_head
    semantic = {}
    if getattr(roi_head, 'with_semantic', False):
        semantic['semantic_feat'] = roi_head.semantic_head(x)[1]
    features = []
    heads = classifier_heads(model).values()
    for stage, head in enumerate(heads):
        arguments = (stage, x) if hasattr(roi_head, 'num_stages') else (x,)
        roi_head._bbox_forward(*arguments, rois, **semantic)
        features.append(head.roi_feature)
    return features, labels


def class_sums(
    model: Any, parts: Parts, ann_file: str, description: str
) -> list[Tensor]:
    """Sum up the features of each class.

    Args:
        model (nn.Module): The detector.
        parts (Parts): The training set.
        ann_file (str): One of its parts.
        description (str): What it is called.

    Returns:
        list[Tensor]: Sums (C, F), one for each stage.
    """
    heads = classifier_heads(model).values()
    sums = [head.class_means.double().zero_() for head in heads]
    loader = parts.load(ann_file, with_boxes=True)
    for data in progress(parts.detector, loader, description):
        features, labels = look_at(model, data)
        for total, feature in zip(sums, features):
            total.index_add_(0, labels, feature.double())
    return sums


def main() -> None:
    """Find the means, choose the temperature and write the detector."""
    args = parse_args()
    detector = TrainedDetector.read(args)
    check_softmax(detector, detector.build())
    put_class_means(detector, args.feature, args.temperature[0])
    model = detector.build()
    heads = list(classifier_heads(model).values())

    def change(temperature: float) -> None:
        for head in heads:
            head.temperature = temperature

    def set_means(sums: list[Tensor]) -> None:
        # The length of a mean does not count, so the sum is as good, but
        # numbers close to 1 are kinder to single precision.
        for head, total in zip(heads, sums):
            head.class_means.copy_(torch.nn.functional.normalize(total))

    temperature = args.temperature[0]
    with split_training_set(detector, args.held_out, args.seed) as parts:
        kept = class_sums(model, parts, parts.kept, 'Means')
        held_out = class_sums(model, parts, parts.held_out, 'Means, held out')
        if len(args.temperature) > 1:
            set_means(kept)
            temperature = parts.choose(
                model, 'temperature', args.temperature, change
            )
    set_means([a + b for a, b in zip(kept, held_out)])
    for settings in bbox_head_configs(detector.config.model).values():
        settings.temperature = temperature
    detector.write(args.out, model)


if __name__ == '__main__':
    run(main)
