"""Test a detector: evaluate a checkpoint on the test set of a config."""

import sys

from mmdet_longtail.apis.evaluation import print_means, write_metrics
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_runner_options,
    check_outputs,
    command_parser,
    print_next,
)
from mmdet_longtail.cli.result_files import (
    add_metric_options,
    read_bootstrap,
)


def main() -> None:
    parser = command_parser(__doc__)
    add_runner_options(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--out',
        metavar='PREFIX',
        help='write the detections as COCO results: PREFIX.bbox.json, '
        'PREFIX.segm.json',
    )
    add_metric_options(parser)
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test with augmentation: tta_model and tta_pipeline of the '
        'config',
    )
    parser.add_argument(
        '--show', action='store_true', help='show detections in a window'
    )
    parser.add_argument(
        '--show-dir',
        help='draw detections into images in <work dir>/<time>/SHOW_DIR',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that --show shows an image',
    )
    args = parser.parse_args()
    outputs = [args.json, args.per_class]
    if args.out is not None:
        outputs += [f'{args.out}.{kind}.json' for kind in ('bbox', 'segm')]
    check_outputs(outputs, (args.config, args.checkpoint))

    from mmdet_longtail.apis.test import test_detector

    bootstrap = read_bootstrap(args)
    options = dict(vars(args), keep_evaluations=bootstrap is not None)
    for name in ('json', 'bootstrap', 'confidence', 'seed'):
        del options[name]
    tested = test_detector(**options)
    if tested is None:
        return
    metrics, evaluations = tested
    found = {} if bootstrap is None else print_means(evaluations, bootstrap)
    warnings = {e.spec.warning: None for e in evaluations.values()}
    warnings.pop('', None)
    for warning in warnings:
        print(f'warning: {warning}', file=sys.stderr)
    if args.json is not None:
        source = {'config': args.config, 'checkpoint': args.checkpoint}
        write_metrics(
            args.json, source, metrics, found, bootstrap, list(warnings)
        )
    if args.out is not None:
        files = f'{args.out}.bbox.json OTHER.bbox.json'
        print_next('compare', files, '--ann VAL.json --train TRAIN.json')


if __name__ == '__main__':
    run(main)
