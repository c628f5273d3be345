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

Writes into the folder --out classifier.csv, one row per class and checkpoint,
and a figure per measure, classes with most images first:

    positive_rois        sampled RoIs of the class
    gradient_*           |dL/dz| of the class's score, summed over the RoIs of
                         an average batch that are of the class (positive), of
                         another class (foreground_negative), of none
                         (background_negative)
    negative_to_positive  both negatives over positive; above 1 they win
    probability          mean over the class's RoIs of its probability
    weight_norm          length of the class's row of the classifier; drawn
                         over the number of training boxes

Prints the means over rare, common and frequent classes, and the rank
correlation of weight_norm and the number of training boxes.

With --proposals, measures the accuracy of the classifier on the RPN's test
proposals (test_cfg.rpn.max_per_img per image), on the validation set unless
--split train. A proposal has the class of the object that it overlaps by an
IoU of at least 0.5, or is background. Prints and writes proposal_accuracy.csv,
one row per checkpoint and group of classes:

    proposals            number of proposals
    accuracy             percent whose most probable class, or background, is
                         the right one
    class_accuracy       percent whose most probable class is the right one,
                         whatever the probability of background
"""

from mmdet_longtail.apis.analyze_classifier import analyze_classifiers
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cfg_options,
    command_parser,
    positive_int,
)


def main() -> None:
    """Measure and compare the classifiers."""
    parser = command_parser(__doc__)
    parser.add_argument('config', help='config whose data is used')
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='checkpoint, or a work directory with one',
    )
    parser.add_argument(
        '--proposals',
        action='store_true',
        help='measure the accuracy on test proposals',
    )
    parser.add_argument(
        '--split',
        choices=['train', 'val'],
        help='images (default: train; with --proposals val)',
    )
    parser.add_argument(
        '--bin-edges',
        type=float,
        nargs='+',
        metavar='EDGE',
        help='bins by instance_count, for --proposals (default: 10 100 1000)',
    )
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='folder to write'
    )
    parser.add_argument(
        '--max-images',
        type=positive_int,
        metavar='N',
        help='images to draw, the same for all checkpoints (default: all)',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='names of the checkpoints (default: their folders)',
    )
    add_cfg_options(parser)
    analyze_classifiers(**vars(parser.parse_args()))


if __name__ == '__main__':
    run(main)
