"""Test of a detector from Python."""

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from mmdet_longtail.apis.runner import load_run_config, running
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import Evaluation
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.structures.checkpoint import Checkpoint
from mmdet_longtail.utils.registry import innermost


def test_detector(
    config: str | Path,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    out: str | None = None,
    per_class: str | None = None,
    keep_evaluations: bool = False,
    tta: bool = False,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2,
) -> tuple[dict[str, Any], dict[tuple[str, str], Evaluation]] | None:
    """Evaluate a checkpoint on the test set of a config.

    The arguments are the options of ``tools/test.py``, whose help describes
    them; ``keep_evaluations`` requires evaluations per class.

    Returns:
        tuple | None: On rank 0, the metrics by the names of the evaluator,
        and the evaluations by metric prefix and IoU type; None on others.

    Raises:
        LongTailError: If the config, its data or the checkpoint is broken, or
            the test set has no metric for an option.
    """
    cfg = load_run_config(config, cfg_options, work_dir)
    weights = Checkpoint.load(checkpoint)
    cfg.load_from = str(checkpoint)
    if show or show_dir:
        options = Namespace(show=show, show_dir=show_dir, wait_time=wait_time)
        trigger_visualization_hook(cfg, options)
    if tta:
        _augment_test_time(cfg, config)
    with running(cfg, launcher, 'test') as runner:
        # mmengine only logs a mismatch, and tests untrained weights.
        weights.check_weights(unwrapped(runner.model))
        if out is not None:
            os.makedirs(os.path.dirname(out) or '.', exist_ok=True)
            writers = _metrics_with(
                runner, 'outfile_prefix', '--out', 'CocoMetric'
            )
            writers[0].outfile_prefix = out
        of_classes = [
            metric
            for metric in runner.test_evaluator.metrics
            if isinstance(metric, FrequencyGroupMetric)
        ]
        if keep_evaluations or per_class is not None:
            option = '--bootstrap and --per-class'
            _metrics_with(runner, 'evaluations', option, 'FixedAPMetric')
        if per_class is not None:
            of_classes[0].per_class_file = per_class
        metrics = runner.test()
    if not is_main_process():
        return None
    evaluations = {
        (metric.prefix, iou_type): evaluation
        for metric in of_classes
        for iou_type, evaluation in metric.evaluations.items()
    }
    return metrics, evaluations


def _augment_test_time(config: Config, path: str | Path) -> None:
    """Wrap the model and replace the pipeline of the test set."""
    for key in ('tta_model', 'tta_pipeline'):
        check(
            key in config,
            f'{path}: --tta needs {key}, which the config does not have; '
            'configs/lvis_challenge_2019 has examples',
        )
    config.model = ConfigDict(**config.tta_model, module=config.model)
    dataset = innermost(config.test_dataloader.dataset)
    dataset.pipeline = config.tta_pipeline


def _metrics_with(
    runner: Runner, attribute: str, option: str, other: str
) -> list[Any]:
    """Return the metrics of the test set that have an attribute."""
    metrics = runner.test_evaluator.metrics
    found = [metric for metric in metrics if hasattr(metric, attribute)]
    check(
        found,
        f'{option}: no metric of test_evaluator has {attribute}; '
        f'FrequencyGroupMetric and {other} do',
    )
    return found
