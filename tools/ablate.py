r"""Train a grid of configs, settings and seeds, here or through Slurm.

    python tools/ablate.py softmax.py bags.py --seeds 0 1 2
    python tools/ablate.py bags.py --seeds 0 1 2 \
        --set model.roi_head.bbox_head.loss_cls.bin_edges '(10,100)' '(30,300)'
    python tools/ablate.py eql.py bags.py --base-checkpoint softmax.pth \
        --cached --search-lr 0.005 0.01 0.02 0.04

One run is trained after the other. With --launcher slurm, up to --max-jobs
run at the same time as tasks of a job array, and the command returns at once.
WORK_DIR/commands has the command of each run.

The same command resumes after an interruption: finished runs are kept, the
others continue from their last checkpoint. A config with `base_config` (a
second stage) starts from the last checkpoint of that config's run with the
same seed, which is trained first. The first stage has those settings that the
second stage inherits from it. The first stage keeps its own learning rate.

With --search-lr, each method gets its own learning rate first, the best one
on held-out training images. WORK_DIR/learning_rates.json has them. With
--retrain-base, and without --base-checkpoint, the search trains its own base,
without these images.

Each config is checked first, as by `longtail check`: nothing is trained if
one has an error.

With Slurm, the same command also prints the progress of the runs. Failed and
cancelled runs are submitted again, except with --collect.
"""

import argparse
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Any

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cached,
    add_cfg_options,
    add_search_lr,
    command_parser,
    positive_int,
    random_seed,
)
from mmdet_longtail.errors import check

if TYPE_CHECKING:
    from mmdet_longtail.apis.sweep import Sweep


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add = parser.add_argument
    add('configs', nargs='+', metavar='CONFIG')
    add(
        '--set',
        nargs='+',
        action='append',
        default=[],
        dest='settings',
        metavar=('KEY', 'VALUE'),
        help='key of the config and values to compare, as for --cfg-options '
        'or as Python: 0.1 [10,100] "dict(type=\'EqualizationLoss\')"; each '
        "value replaces the config's; several --set make a grid",
    )
    add(
        '--seeds',
        nargs='+',
        type=random_seed,
        default=[0],
        help='random seeds',
    )
    add(
        '--work-dir',
        default='work_dirs/ablation',
        help='folder for a directory per run, commands/, ablation.csv and '
        'ablation.png (default: %(default)s)',
    )
    add(
        '--metric',
        nargs='+',
        metavar='KEY',
        help='metrics in the table and the plot, by the end of their names '
        '(default: every AP over all sizes and IoUs)',
    )
    add(
        '--base-checkpoint',
        metavar='FILE',
        help='the trained detector that all second stages start from: a file, '
        'or the work directory of a training; {seed} stands for the seed of '
        'the run (default: train base_config)',
    )
    add_cached(parser)
    add_search_lr(parser)
    add(
        '--retrain-base',
        action='store_true',
        help='let --search-lr train base_config on the images that are not '
        'held out, instead of searching on --base-checkpoint, which has '
        'usually seen them',
    )
    add_cfg_options(parser, 'overrides for all runs, first stages included')
    add(
        '--launcher',
        choices=['none', 'slurm'],
        default='none',
        help='none: train here, one run after the other; slurm: submit job '
        'arrays (default: %(default)s)',
    )
    slurm = parser.add_argument_group('with --launcher slurm')
    add = slurm.add_argument
    add(
        '--max-jobs',
        type=positive_int,
        metavar='N',
        help='maximum of runs at a time',
    )
    add('--partition', help='of the cluster')
    add(
        '--gpus',
        type=positive_int,
        metavar='N',
        help='GPUs, and processes, per run, on one node (default: one process '
        'without a GPU)',
    )
    add('--cpus-per-task', metavar='N', help='CPUs per process')
    add(
        '--time',
        help='limit per run, such as 1-00:00:00; the run is then requeued',
    )
    add(
        '--sbatch-args',
        type=shlex.split,
        default=[],
        metavar='OPTIONS',
        help='more options of sbatch, such as '
        '--sbatch-args="--account=mine --mem=16G", with the =',
    )
    add('--collect', action='store_true', help='submit nothing')
    args = parser.parse_args()
    if args.retrain_base and not args.search_lr:
        parser.error('--retrain-base needs --search-lr')
    if args.launcher == 'none':
        for action in slurm._group_actions:
            if getattr(args, action.dest) != action.default:
                parser.error(
                    f'{action.option_strings[0]} needs --launcher slurm'
                )
    return args


def train(sweep: 'Sweep', args: argparse.Namespace) -> dict[str, str]:
    """Check a sweep, and train what is missing, here or through Slurm."""
    from mmdet_longtail.cli.slurm import ArrayTasks, train_in_slurm

    if not args.collect:
        sweep.check()
    if args.launcher == 'none':
        if any(run.metrics is None for run in sweep.runs):
            ArrayTasks(sweep.work_dir).check_none_queued()
        return sweep.train()
    options = [
        f'--{name.replace("_", "-")}={getattr(args, name)}'
        for name in ('partition', 'cpus_per_task', 'time')
        if getattr(args, name) is not None
    ]
    options += args.sbatch_args  # the last ones win
    return train_in_slurm(
        sweep, args.max_jobs, args.gpus, options, args.collect
    )


def main() -> int:
    """Train what is missing, and compare what is finished."""
    args = parse_args()

    from mmdet_longtail.apis import sweep as api
    from mmdet_longtail.apis.search_lr import LearningRateSearch

    settings: dict[str, list[Any]] = {}
    for key, *texts in args.settings:
        check(texts, f'--set {key}: no value; write KEY V1 V2 ...')
        settings.setdefault(key, []).extend(map(api.parse_value, texts))
    options: dict[str, Any] = dict(
        cfg_options=args.cfg_options,
        cached=args.cached,
        base_checkpoint=args.base_checkpoint,
    )
    grid = (args.work_dir, args.configs, settings, args.seeds)
    sweep = api.Sweep(*grid, **options)
    sweep.check_metrics(args.metric)
    # A SIGTERM ends the training that runs, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if args.search_lr:
        own_base = {'base_checkpoint': None} if args.retrain_base else {}
        search = LearningRateSearch(
            args.work_dir,
            args.configs,
            args.search_lr,
            settings,
            args.seeds[0],
            args.held_out,
            **options | own_base,
        )
        failures = train(search.sweep, args)
        waiting = {run.name for run in search.missing} - failures.keys()
        if waiting:
            print(
                f'{len(waiting)} trainings of --search-lr are not finished; '
                'repeat this command afterwards'
            )
            return 1 if failures else 0
        options['learning_rates'] = search.choose(failures)
        print_failures(failures)
        sweep = api.Sweep(*grid, **options)
    failures = train(sweep, args)
    if results := sweep.save_results():
        path = sweep.work_dir / 'ablation.png'
        summary = api.summarise(results, args.metric)
        api.print_table(summary)
        api.plot(path, summary)
        print(f'{path.with_suffix(".csv")}, {path}')
    print_failures(failures)
    return 1 if failures else 0


def print_failures(failures: dict[str, str]) -> None:
    """Print the reason per failed run."""
    for name, reason in failures.items():
        print(f'failed: {name}: {reason}', file=sys.stderr)


if __name__ == '__main__':
    run(main)
