r"""Fold the learned scales of a classifier (LWS) into its weights.

    longtail fold-weight-scaling CONFIG CHECKPOINT OUT.pth

The checkpoint was trained with cls_predictor_cfg=dict(type='ScaledLinear'),
z_c = s_c (w_c . x) + b_c. Each row, background's too, becomes s_c w_c of a
plain linear layer that predicts the same. Writes OUT.pth, and beside it
OUT.py, the config that tests it.
"""

import argparse

from mmdet_longtail.apis.trained_detector import (
    TrainedDetector,
    add_arguments,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.layers import ScaledLinear
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    add_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Fold the scales of every stage, and write the detector."""
    args = parse_args()
    detector = TrainedDetector.read(args)
    heads = classifier_heads(detector.build())
    for name, head in heads.items():
        if not isinstance(head.fc_cls, ScaledLinear):
            raise LongTailError(
                f'{args.checkpoint}: {name}.fc_cls is a '
                f'{type(head.fc_cls).__name__}, expected a ScaledLinear: '
                'there are no scales to fold'
            )
        w = head.fc_cls.weight
        s = head.fc_cls.scale
        detector.checkpoint.weights[f'{name}.fc_cls.weight'] = w * s[:, None]
        del detector.checkpoint.weights[f'{name}.fc_cls.scale']
    for settings in bbox_head_configs(detector.config.model).values():
        del settings['cls_predictor_cfg']
    detector.write(args.out, detector.build())


if __name__ == '__main__':
    run(main)
