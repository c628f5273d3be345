r"""Even out the lengths of a trained classifier's rows (tau-norm).

    longtail tau-normalize CONFIG CHECKPOINT OUT.pth
    longtail tau-normalize CONFIG CHECKPOINT OUT.pth --tau 0.7

Each class's row w becomes w (m / ||w||)^tau, with m the mean length of the
classes' rows; background and biases stay. Nothing is trained. Of several
values of tau, the one with the best AP on a part of the training set is
taken. Writes OUT.pth, and beside it OUT.py, the config that tests it.
"""

import argparse
import math

from mmengine.config import ConfigDict

from mmdet_longtail.apis.held_out import (
    split_training_set,
)
from mmdet_longtail.apis.trained_detector import (
    TrainedDetector,
    add_arguments,
    check_softmax,
    check_softmax_or_sigmoid,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_held_out_options, command_parser
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import tau_norm_scale
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
)

TAUS = (0.0, 0.25, 0.5, 0.75, 1.0)


def not_negative(text: str) -> float:
    """Read a number from 0."""
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f'{text} is not at least 0')
    return number


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    add_arguments(parser)
    parser.add_argument(
        '--tau',
        type=not_negative,
        nargs='+',
        default=TAUS,
        help='0 changes nothing, 1 makes all classes equally long (default: '
        'the best of 0 0.25 0.5 0.75 1)',
    )
    parser.add_argument(
        '--as-published',
        action='store_true',
        help='m = 1: classes get another scale than background has',
    )
    parser.add_argument(
        '--select',
        action='store_true',
        help='use the changed scores only of RoIs that the detector takes for '
        'an object and the changed scores for a tail class',
    )
    parser.add_argument(
        '--fewer-than',
        type=not_negative,
        default=100,
        metavar='N',
        help='with --select: a tail class has fewer training boxes '
        '(default: 100)',
    )
    add_held_out_options(parser)
    return parser.parse_args()


def put_select_loss(detector: TrainedDetector, fewer_than: float) -> None:
    """Set the loss that predicts with both scores.

    Raises:
        LongTailError: If the detector is a cascade.
    """
    heads = [*bbox_head_configs(detector.config.model).values()]
    if len(heads) > 1:
        raise LongTailError(
            f'{detector.path}: --select needs the scores of one classifier, '
            f'but a cascade averages those of {len(heads)}; leave it out'
        )
    heads[0].loss_cls = ConfigDict(
        type='TauNormSelectLoss',
        num_classes=detector.statistics.num_classes,
        fewer_than=fewer_than,
    )


def main() -> None:
    """Change the classifier and write it."""
    args = parse_args()
    detector = TrainedDetector.read(args)
    model = detector.build()
    if args.select:
        check_softmax(detector, model)
        put_select_loss(detector, args.fewer_than)
        model = detector.build()
    else:
        check_softmax_or_sigmoid(detector, model)
    heads = classifier_heads(model).values()
    trained = [head.fc_cls.weight.clone() for head in heads]

    def change(tau: float) -> None:
        for head, weight in zip(heads, trained):
            w = weight[: head.num_classes]
            s = tau_norm_scale(w, tau, args.as_published)
            if args.select:
                head.loss_cls.scale.copy_(s)
                if head.fc_cls.bias is not None:
                    head.loss_cls.bias.copy_(head.fc_cls.bias[: len(s)])
            else:
                head.fc_cls.weight[: len(s)] = w * s[:, None]

    tau = args.tau[0]
    if len(args.tau) > 1:
        with split_training_set(detector, args.held_out, args.seed) as parts:
            tau = parts.choose(model, 'tau', args.tau, change)
    change(tau)
    detector.write(args.out, model)


if __name__ == '__main__':
    run(main)
