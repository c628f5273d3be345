"""Check a training before it is started, without training.

    longtail check CONFIG

Builds the model and the datasets, and reads annotation files, load_from and a
sample of the images. It lists errors, warnings and notes. The options of
train.py are accepted; those for GPUs, --amp and --launcher, are not checked.
The exit status is 2 with an error, 1 with a warning and --strict, else 0.
"""

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_train_options, command_parser


def main() -> int:
    parser = command_parser(__doc__)
    add_train_options(parser)
    parser.add_argument(
        '--all', action='store_true', help='read all images, not a sample'
    )
    parser.add_argument(
        '--strict', action='store_true', help='exit with 1 after a warning'
    )
    args = parser.parse_args()

    from mmdet_longtail.apis.check import check_training
    from mmdet_longtail.structures.findings import Severity, print_findings

    findings = check_training(
        args.config,
        work_dir=args.work_dir,
        cfg_options=args.cfg_options,
        auto_scale_lr=args.auto_scale_lr,
        resume=args.resume,
        all_images=args.all,
    )
    worst = print_findings(findings)
    if worst is Severity.ERROR:
        return 2
    return int(args.strict and worst is Severity.WARNING)


if __name__ == '__main__':
    run(main)
