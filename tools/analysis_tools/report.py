"""Compare detectors on one page.

    python tools/analysis_tools/report.py work_dirs/softmax work_dirs/bags --out report.html

Takes work directories, or checkpoints: a checkpoint carries its config and
the counts of its training set. The first detector is what the others are
compared with. All are evaluated on their validation set, which must be one.
"""

import argparse
import copy
import json
import tempfile
from collections import defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmdet_longtail.apis.detect import (
    ProgressHook,
    keep_only_test,
)
from mmdet_longtail.apis.runner import (
    build_runner,
    failures_explained,
    last_checkpoint,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_cfg_options
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    Evaluation,
    bootstrap_means,
    differences,
    read_ground_truth,
)
from mmdet_longtail.structures import Checkpoint
from mmdet_longtail.utils.console import progress_console, quiet
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.visualization.report import (
    NUM_DRAWS,
    Boxes,
    Detector,
    Picture,
    ValidationSet,
    build_page,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'detectors', nargs='+', metavar='WORK_DIR_OR_CHECKPOINT'
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='what the page calls them (default: names of their folders)',
    )
    parser.add_argument('--out', default='report.html')
    add_cfg_options(
        parser, 'overrides for the configs, such as another place of the data'
    )
    return parser.parse_args()


def test_config(
    trained: Config,
    path: Path,
    folder: str,
    cfg_options: dict[str, Any] | None,
) -> Config:
    """Make the config that tests a checkpoint on its validation set.

    Args:
        trained (Config): The config that the checkpoint carries.
        path (Path): The checkpoint.
        folder (str): Where the test may write.
        cfg_options (dict, optional): Overrides.

    Raises:
        LongTailError: If its evaluator reads no annotation file.
    """
    config = copy.deepcopy(trained)
    config.merge_from_dict(cfg_options or {})
    evaluators = config.val_evaluator
    if not isinstance(evaluators, list):
        evaluators = [evaluators]
    evaluator = next((e for e in evaluators if e.get('ann_file')), None)
    if evaluator is None:
        raise LongTailError(
            f'{path}: val_evaluator has no ann_file; give one by '
            '--cfg-options val_evaluator.ann_file=FILE'
        )
    if evaluator['type'] != 'FrequencyGroupMetric':
        evaluator = dict(ann_file=evaluator['ann_file'])
    config.test_evaluator = dict(
        evaluator,
        type='FrequencyGroupMetric',
        metric='bbox',
        outfile_prefix=f'{folder}/detections',
        per_class_file=None,
    )
    config.test_dataloader = config.val_dataloader
    keep_only_test(config, str(path), folder)
    return config


def how_trained(config: Config) -> str:
    """Say how long a detector was trained, and which part of it."""
    loop = config.train_cfg
    text = (
        f'{loop.max_epochs} epochs'
        if 'max_epochs' in loop
        else f'{loop.max_iters} iterations'
    )
    hooks = [
        *config.get('custom_hooks', []),
        *config.get('default_hooks', {}).values(),
    ]
    for hook in hooks:
        if hook and hook['type'] == 'TrainOnlyHook':
            parts = [name.rpartition('.')[2] for name in hook['trainable']]
            text += f', only {", ".join(parts)}'
    return text


def class_weights(
    weights: dict[str, Any], num_classes: int
) -> np.ndarray | None:
    """Rows (C, F) of the classes in the last classifier, if there is one."""
    layers = [name for name in weights if name.endswith('fc_cls.weight')]
    return weights[layers[-1]][:num_classes].numpy() if layers else None


def read_pictures(
    dataset: Any, ground_truth: dict, category_ids: list[Hashable]
) -> dict[Hashable, Picture]:
    """Collect the annotated boxes of every image of a data set."""
    label = {id: c for c, id in enumerate(category_ids)}
    truth = defaultdict(list)
    for a in ground_truth['annotations']:
        is_counted = not a.get('iscrowd') and not a.get('ignore')
        if a['category_id'] in label and is_counted:
            truth[a['image_id']].append(
                (a['bbox'], label[a['category_id']], 1)
            )
    images = {image['id']: image for image in ground_truth['images']}
    pictures = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        id = info['img_id']
        boxes = Boxes.of(truth[id])
        checked = None
        if 'neg_category_ids' in images[id]:
            negative = {label.get(k) for k in images[id]['neg_category_ids']}
            partly = {
                label.get(k) for k in images[id]['not_exhaustive_category_ids']
            }
            checked = frozenset({*boxes.labels.tolist(), *negative} - partly)
        pictures[id] = Picture(info['img_path'], boxes, checked)
    return pictures


def evaluate(
    path: Path, name: str, cfg_options: dict[str, Any] | None
) -> tuple[Detector, Evaluation, ValidationSet]:
    """Test a checkpoint on its validation set.

    Raises:
        LongTailError: If the checkpoint or a file that it names is bad.
    """
    progress = ProgressHook(name)
    with (
        tempfile.TemporaryDirectory() as folder,
        # What mmengine and pycocotools print would break the progress bar.
        quiet(),
    ):
        checkpoint = Checkpoint.load(path)
        statistics = checkpoint.require_class_statistics()
        trained = checkpoint.require_config()
        config = test_config(trained, path, folder, cfg_options)
        with failures_explained(config):
            runner = build_runner(config)
            runner.register_hook(progress)
            [metric] = runner.test_loop.evaluator.metrics
            metric.set_class_statistics(statistics)
            metrics = runner.test()
        rows = json.loads(Path(folder, 'detections.bbox.json').read_text())
    label = {id: c for c, id in enumerate(metric.ground_truth.category_ids)}
    found = defaultdict(list)
    for row in rows:
        found[row['image_id']].append(
            (row['bbox'], label[row['category_id']], row['score'])
        )
    losses = [
        module
        for module in runner.model.modules()
        if hasattr(module, 'loss_cls') and hasattr(module, 'fc_cls')
    ]
    evaluation = metric.evaluations['bbox']
    ann_file = config.test_evaluator['ann_file']
    validation = ValidationSet(
        source=ann_file,
        statistics=statistics,
        groups=metric.groups,
        pictures=read_pictures(
            runner.test_loop.dataloader.dataset,
            read_ground_truth(ann_file, ['bbox']),
            metric.ground_truth.category_ids,
        ),
    )
    detector = Detector(
        name=name,
        checkpoint=str(path),
        loss=type(losses[-1].loss_cls).__name__ if losses else '',
        training=how_trained(trained),
        metrics={
            key.rpartition('/')[2].removeprefix('bbox_'): value
            for key, value in metrics.items()
        },
        class_ap=evaluation.class_ap['AP'],
        class_weights=class_weights(
            dict(checkpoint.weights), len(statistics.class_names)
        ),
        detections={id: Boxes.of(rows) for id, rows in found.items()},
    )
    return detector, evaluation, validation


def main() -> None:
    """Evaluate the detectors and write the page."""
    args = parse_args()
    paths = [Path(path) for path in args.detectors]
    names = args.names or [
        (path if path.is_dir() else path.parent).resolve().name
        for path in paths
    ]
    if len(names) != len(paths):
        raise LongTailError(
            f'--names: expected {len(paths)} names, one a detector, found '
            f'{len(names)}'
        )
    paths = [last_checkpoint(p) if p.is_dir() else p for p in paths]
    detectors: list[Detector] = []
    evaluations: list[Evaluation] = []
    validation = None
    for path, name in zip(paths, names):
        detector, evaluation, its_validation = evaluate(
            path, name, args.cfg_options
        )
        if validation is None:
            validation = its_validation
        if (
            its_validation.source != validation.source
            or its_validation.statistics.class_names
            != validation.statistics.class_names
        ):
            raise LongTailError(
                f'{path}: was validated on {its_validation.source}, but '
                f'{paths[0]} on {validation.source}; compare detectors on '
                'the same data'
            )
        detectors.append(detector)
        evaluations.append(evaluation)
    assert validation is not None
    means = bootstrap_means(evaluations, NUM_DRAWS, console=progress_console())
    compared = differences(evaluations, means)
    write_atomic(args.out, build_page(validation, detectors, compared))
    print(f'Report: {Path(args.out).resolve()}')


if __name__ == '__main__':
    run(main)
