"""Plot the gains of the methods of sweeps over a control.

    longtail gains glyphs=work_dirs/methods/ablation.csv \
        --control softmax-classifier --out gain.png

Methods are compared per random seed. The picture has a panel each for rare,
common and frequent classes.
"""

import argparse

from mmdet_longtail.apis.gains import read_gains
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.visualization.figures import figure_bytes
from mmdet_longtail.visualization.gains import plot_gains


def named_file(text: str) -> tuple[str, str]:
    """Split NAME=FILE."""
    name, equals, path = text.partition('=')
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f'{text} is not NAME=FILE')
    return name, path


def main() -> None:
    """Read the tables, and write the picture."""
    parser = command_parser(__doc__)
    parser.add_argument(
        'tables',
        nargs='+',
        type=named_file,
        metavar='NAME=FILE',
        help='name of a dataset, and ablation.csv of a sweep on it',
    )
    parser.add_argument(
        '--control',
        required=True,
        help='method to compare with: the part of its config that differs',
    )
    parser.add_argument(
        '--out', default='gain.png', help='picture (default: %(default)s)'
    )
    args = parser.parse_args()
    names = [name for name, _ in args.tables]
    if len({*names}) < len(names):
        parser.error(f'expected a name per table, found {" ".join(names)}')
    datasets = {
        name: read_gains(path, args.control) for name, path in args.tables
    }
    figure = plot_gains(datasets, args.control)
    write_atomic(args.out, figure_bytes(figure, args.out))
    print(f'{args.out}: {len(datasets)} datasets')


if __name__ == '__main__':
    run(main)
