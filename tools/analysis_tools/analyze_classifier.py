r"""Measure how a detector's classifier treats rare and frequent classes.

    longtail analyze softmax.py \
        work_dirs/softmax work_dirs/eql --names softmax EQL --out analysis
    longtail analyze softmax.py \
        work_dirs/softmax work_dirs/bags --proposals --out analysis

The images are those of CONFIG's training set, with its augmentation, or with
--split val those of its validation set. Model and loss are those of the config
that the checkpoint carries, else of CONFIG. The images go through the
detector's training loss, with RoIs sampled as in training. No weight changes,
and normalization layers and dropout are as in a test.

Prints means over rare, common and frequent classes, and the rank correlation
of weight norms and training boxes. Writes classifier.csv, one row per class
and checkpoint, and a figure per column: sampled RoIs, gradients |dL/dz| from
RoIs of the class, of other classes and of background, their ratio, the
probability of the class on its RoIs, and the norm of its row.

With --proposals, measures the accuracy of the classifier on the RPN's test
proposals (test_cfg.rpn.max_per_img per image), on the validation set unless
--split train. A proposal has the class of the object that it overlaps by an
IoU of at least 0.5, or is background. Prints and writes proposal_accuracy.csv,
one row per checkpoint and group of classes. class_accuracy leaves out the
probability of background.
"""

from mmdet_longtail.apis.analyze_classifier import analyze_classifiers
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cfg_options,
    add_trust_config,
    command_parser,
    positive_int,
)


def main() -> None:
    """Measure and compare the classifiers."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add('config', help='config whose data is used')
    add(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='checkpoint, or a work directory with one',
    )
    add(
        '--proposals',
        action='store_true',
        help='measure the accuracy on test proposals',
    )
    add(
        '--split',
        choices=['train', 'val'],
        help='images (default: train; with --proposals val)',
    )
    add(
        '--bin-edges',
        type=float,
        nargs='+',
        metavar='EDGE',
        help='bins by instance_count, for --proposals (default: 10 100 1000)',
    )
    add('--out', required=True, metavar='FOLDER', help='folder to write')
    add(
        '--max-images',
        type=positive_int,
        metavar='N',
        help='images to draw, the same for all checkpoints (default: all)',
    )
    add(
        '--names',
        nargs='+',
        help='names of the checkpoints (default: their folders)',
    )
    add_cfg_options(parser)
    add_trust_config(parser)
    analyze_classifiers(**vars(parser.parse_args()))


if __name__ == '__main__':
    run(main)
