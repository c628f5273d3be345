r"""Write a config for a COCO or LVIS format dataset of your own.

    python tools/make_config.py data/mine --train train.json --val val.json \
        --method eql
    python tools/make_config.py data/mine --train train.json --val val.json \
        --method bags --base-config mine_softmax.py

Class names, the number of classes, EQL's lambda, BAGS's bins and the t of
--rfs come from the annotation files, as `longtail statistics` suggests them.
With --base-config the written config is a second stage: it starts from a
detector that was trained with that config, and trains only its classifier.
"""

from mmdet_longtail.apis.config_writer import (
    DEFAULT_BASE,
    METHODS,
    SAMPLERS,
    make_config,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    command_parser,
    positive_int,
    print_next,
)


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument('data_root', help='folder of the dataset')
    parser.add_argument(
        '--train', required=True, help='annotation file, inside data_root'
    )
    parser.add_argument(
        '--val', required=True, help='annotation file, inside data_root'
    )
    losses = parser.add_mutually_exclusive_group(required=True)
    losses.add_argument(
        '--method',
        choices=[*METHODS],
        help='sigmoid is plain sigmoid cross-entropy: no class is tail',
    )
    losses.add_argument(
        '--loss',
        dest='method',
        metavar='TYPE',
        help='any registered long-tail loss, with the settings that suit the '
        'data',
    )
    bases = parser.add_mutually_exclusive_group()
    bases.add_argument(
        '--base',
        nargs='+',
        default=[DEFAULT_BASE],
        help='config of a detector with a RoI head, or several files that '
        'make up one config: paths or mmdet:: names',
    )
    bases.add_argument(
        '--small',
        action='store_true',
        help='a detector that trains on a CPU: MobileNetV2 with ImageNet '
        'weights (`longtail mobilenet-v2`), images of 320 px',
    )
    bases.add_argument(
        '--base-config',
        help='config of the first stage on the same data; the written one '
        'trains only the classifier on top of it',
    )
    parser.add_argument(
        '--image-prefix',
        nargs='+',
        metavar='FOLDER',
        help='image folder inside data_root, or one for training and one for '
        'validation images (default: found by a search)',
    )
    parser.add_argument(
        '--scale',
        nargs=2,
        type=int,
        metavar=('WIDTH', 'HEIGHT'),
        help="size of images (default: the base's)",
    )
    sampling = parser.add_mutually_exclusive_group()
    sampling.add_argument(
        '--sampler',
        choices=[*SAMPLERS],
        help='how training images are drawn (docs/samplers.md)',
    )
    sampling.add_argument(
        '--rfs',
        dest='sampler',
        action='store_const',
        const='rfs',
        help='repeat images of rare classes: --sampler rfs',
    )
    parser.add_argument(
        '--batch-size',
        type=positive_int,
        help='images per process and iteration; the learning rate is scaled '
        'with it',
    )
    parser.add_argument(
        '--epochs',
        type=positive_int,
        help='length of the training; the schedule is stretched with it',
    )
    parser.add_argument(
        '--out', help='file to write (default: <data_root name>_<method>.py)'
    )
    args = parser.parse_args()
    out = make_config(**vars(args))
    print(f'{out} is written')
    print_next('train', out)


if __name__ == '__main__':
    run(main)
