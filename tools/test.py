"""Test a detector: evaluate a checkpoint on the test set of a config."""

import argparse
import os
from pathlib import Path

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmdet_longtail.apis.runner import (
    build_runner,
    check_checkpoint,
    check_num_classes,
    failures_explained,
    load_config,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_cfg_options
from mmdet_longtail.cli.result_files import (
    add_bootstrap_options,
    print_with_intervals,
    with_prefix,
    write_metrics,
)
from mmdet_longtail.compat import set_up_launcher
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import Interval
from mmdet_longtail.evaluation.metrics import (
    FrequencyGroupMetric,
    ProposalRecallMetric,
)
from mmdet_longtail.models.utils.wrappers import unwrapped
from mmdet_longtail.structures import Checkpoint


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--work-dir',
        help='where logs and metrics go; default: as for training',
    )
    parser.add_argument(
        '--out',
        metavar='PREFIX',
        help='keep the detections as COCO results: PREFIX.bbox.json, '
        'PREFIX.segm.json',
    )
    parser.add_argument(
        '--json', metavar='OUT', help='write the metrics, and intervals'
    )
    parser.add_argument(
        '--per-class',
        metavar='CSV',
        help='write AP, recall, counts and confusions of each class',
    )
    add_bootstrap_options(parser, default=0)
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test several views of each image: tta_model and tta_pipeline '
        'of the config',
    )
    parser.add_argument(
        '--show', action='store_true', help='show detections in a window'
    )
    parser.add_argument(
        '--show-dir',
        help='paint detections into images in <work dir>/<time>/SHOW_DIR',
    )
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds that --show shows an image',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch says it with a hyphen or an underscore.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def augment_test_time(config: Config, path: str) -> None:
    """Wrap the model, and let the pipeline of the test set make views.

    Raises:
        LongTailError: If the config does not say how.
    """
    for key in ('tta_model', 'tta_pipeline'):
        if key not in config:
            raise LongTailError(
                f'{path}: --tta needs {key}, which the config does not have; '
                'configs/lvis_challenge_2019 has examples'
            )
    config.model = ConfigDict(**config.tta_model, module=config.model)
    dataset = config.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = config.tta_pipeline


def write_detections(runner: Runner, prefix: str) -> None:
    """Let the evaluator keep the detections.

    Raises:
        LongTailError: If no metric of the evaluator can.
    """
    metrics = [
        metric
        for metric in runner.test_evaluator.metrics
        if hasattr(metric, 'outfile_prefix')
    ]
    if not metrics:
        raise LongTailError(
            '--out: no metric of test_evaluator writes COCO results; '
            'FrequencyGroupMetric and CocoMetric do'
        )
    os.makedirs(os.path.dirname(prefix) or '.', exist_ok=True)
    metrics[0].outfile_prefix = prefix


def metrics_of_classes(runner: Runner) -> list[FrequencyGroupMetric]:
    """Give the metrics that know the AP of each class.

    Raises:
        LongTailError: If the evaluator has none.
    """
    metrics = [
        metric
        for metric in runner.test_evaluator.metrics
        if isinstance(metric, FrequencyGroupMetric)
        and not isinstance(metric, ProposalRecallMetric)
    ]
    if not metrics:
        raise LongTailError(
            '--bootstrap and --per-class: no metric of test_evaluator knows '
            'the AP of each class; FrequencyGroupMetric and FixedAPMetric do'
        )
    return metrics


def main() -> None:
    """Evaluate the checkpoint."""
    args = parse_args()
    config = load_config(args.config, args.cfg_options)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    check_checkpoint(args.checkpoint)
    config.load_from = args.checkpoint
    if args.show or args.show_dir:
        trigger_visualization_hook(config, args)
    if args.tta:
        augment_test_time(config, args.config)
    set_up_launcher(config, args.launcher)
    with failures_explained(config):
        runner = build_runner(config)
        check_num_classes(runner, runner.test_loop.dataloader.dataset)
        # mmengine only logs weights that do not fit, and tests the rest.
        model = unwrapped(runner.model)
        Checkpoint.load(args.checkpoint).check_weights(model)
        if args.out is not None:
            write_detections(runner, args.out)
        of_classes = []
        if args.bootstrap or args.per_class is not None:
            of_classes = metrics_of_classes(runner)
        if args.per_class is not None:
            of_classes[0].per_class_file = args.per_class
        metrics = runner.test()
    if not is_main_process():
        return
    found: dict[str, Interval] = {}
    if args.bootstrap:
        for metric in of_classes:
            for iou_type, evaluation in metric.evaluations.items():
                of_means = print_with_intervals(evaluation, args)
                found |= with_prefix(metric.prefix, iou_type, of_means)
    if args.json is not None:
        write_metrics(
            args.json,
            metrics,
            found,
            args,
            config=args.config,
            checkpoint=args.checkpoint,
        )


if __name__ == '__main__':
    run(main)
