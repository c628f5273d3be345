"""Search of the learning rate of each method, on held-out training images."""

import copy
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.fileio import get_local_path

from mmdet_longtail.apis.held_out import hold_out_of_file, select_images
from mmdet_longtail.apis.runner import count_classes
from mmdet_longtail.apis.sweep import (
    LEARNING_RATE,
    Run,
    Sweep,
    method_name,
)
from mmdet_longtail.errors import check
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.utils.registry import innermost
from mmdet_longtail.utils.tables import format_cells, make_table

# AP over all classes, sizes and IoUs, by any evaluator.
OVERALL = re.compile(r'(.*[/_])?m?AP')


class LearningRateSearch:
    """Trainings of each method at several learning rates.

    They train on a part of the training images, and the config's evaluator
    evaluates them on the others, which are held out. Losses have the counts
    of all training images. ``sweep`` has the trainings, of the first random
    seed; `choose` takes the best learning rate per method. Without a
    ``base_checkpoint`` it also has those of the bases, on the same part, at
    their own learning rates.

    Args:
        work_dir (str | Path): Gets ``learning_rates.json`` and ``search_lr/``
            (``search_lr_retrained/`` without a ``base_checkpoint``).
        configs (Sequence[str]): Paths of config files.
        rates (Sequence[float]): Learning rates to compare.
        settings (Mapping, optional): Those of the `Sweep`.
        seed (int): Random seed of the trainings and of the split. Defaults to
            0.
        held_out (float): Fraction of the training images to hold out, in (0,
            1). Defaults to 0.2.
        **options: Other arguments of the `Sweep`.

    Raises:
        LongTailError: If a config cannot be searched, see `Sweep` and
            `hold_out_images`.
    """

    def __init__(
        self,
        work_dir: str | Path,
        configs: Sequence[str],
        rates: Sequence[float],
        settings: Mapping[str, Sequence[Any]] | None = None,
        seed: int = 0,
        held_out: float = 0.2,
        **options: Any,
    ) -> None:
        settings = settings or {}
        check(
            LEARNING_RATE not in settings,
            f'--set {LEARNING_RATE}: --search-lr sets it, too; give one of '
            'them',
        )
        self.record = Path(work_dir, 'learning_rates.json')
        self.rates = tuple(rates)
        self.held_out = held_out
        self.seed = seed
        self.is_seen = options.get('base_checkpoint') is not None
        name = 'search_lr' if self.is_seen else 'search_lr_retrained'
        folder = self.record.with_name(name)
        grid = {**settings, LEARNING_RATE: self.rates}
        self.sweep = Sweep(folder, configs, grid, [seed], **options)
        for run in self.sweep.runs:
            for stage in run.stages:
                hold_out_images(stage.config, folder, held_out, seed)

    @property
    def missing(self) -> list[Run]:
        """The runs that have no metrics."""
        return [run for run in self.sweep.runs if run.metrics is None]

    def choose(self, failures: Mapping[str, str]) -> dict[str, float]:
        """Return the learning rate with the best AP per method.

        Prints the APs, and writes them to ``learning_rates.json``. Of equal
        APs the lower learning rate wins.

        Args:
            failures (Mapping[str, str]): Reason per failed run.

        Raises:
            LongTailError: If no run of a method has an AP.
        """
        found: dict[str, dict[float, float]] = {}
        reasons: dict[str, str] = {}
        for run in self.sweep.runs:
            *settings, (_, rate) = run.settings
            method = method_name(run.path, settings)
            by_rate = found.setdefault(method, {})
            ap = overall_ap(run.metrics or {})
            # The metrics of a run that failed are of an earlier search.
            if run.name in failures:
                reasons[method] = failures[run.name]
            elif ap >= 0:
                by_rate[rate] = ap
        best = {}
        for method, by_rate in found.items():
            check(
                by_rate,
                f'{method}: no learning rate of --search-lr gave an AP '
                f'({reasons.get(method, "no object is held out")})',
            )
            best[method] = max(sorted(by_rate), key=by_rate.__getitem__)
        self._show(found, best)
        content = {
            'learning_rates': list(self.rates),
            'held_out': self.held_out,
            'seed': self.seed,
            'methods': {
                method: {'learning_rate': best[method], 'AP': by_rate}
                for method, by_rate in found.items()
            },
        }
        write_atomic(self.record, json.dumps(content, indent=1) + '\n')
        return best

    def _show(
        self,
        found: Mapping[str, Mapping[float, float]],
        best: Mapping[str, float],
    ) -> None:
        """Print the APs per method and learning rate."""
        rows = []
        for method, by_rate in found.items():
            means = [100 * by_rate.get(r, float('nan')) for r in self.rates]
            cells = format_cells(means, '.1f', '-')
            rows.append([method, *cells, f'{best[method]:g}'])
        headings = ['AP by learning rate', *map('{:g}'.format, self.rates)]
        title = f'on held-out training images ({self.held_out:.0%})'
        table_console().print(make_table([*headings, 'best'], rows, title))
        if self.is_seen:
            print(
                'the detector was trained on the held-out images if they are '
                'in its training set; then a higher rate than the best one '
                'may be better: search by longtail ablate --retrain-base '
                '(docs/two_stage.md)'
            )
        ends = {min(self.rates): 'lower', max(self.rates): 'higher'}
        for method, rate in best.items():
            if rate in ends and len(self.rates) > 1:
                print(
                    f'{method}: the best learning rate {rate:g} is at the end '
                    f'of the grid; a {ends[rate]} one may be better'
                )


def overall_ap(metrics: Mapping[str, Any]) -> float:
    """Return the AP of all classes, 0..1, or -1 without one."""
    values = (v for name, v in metrics.items() if OVERALL.fullmatch(name))
    return next(values, -1)


def hold_out_images(
    config: Config, folder: Path, fraction: float, seed: int
) -> None:
    """Let a config train on a part of its images, and validate on the others.

    The parts are annotation files below ``folder``, which configs of the same
    training images share.

    Raises:
        LongTailError: If the training set has no annotation file of its own,
            an evaluator reads none, or one part would be empty.
    """
    train = innermost(config.train_dataloader.dataset)
    check(
        isinstance(train.get('ann_file'), str),
        '--search-lr: the training set has no ann_file of its own, so no '
        'images can be held out; merge its files by '
        'tools/dataset_converters/merge_annotations.py',
    )
    for key in ('val_dataloader', 'val_evaluator'):
        check(
            config.get(key) is not None,
            f'--search-lr: the config has no {key}; add it',
        )
    evaluators = config.val_evaluator
    if not isinstance(evaluators, list):
        evaluators = [evaluators]
    check(
        all('ann_file' in evaluator for evaluator in evaluators),
        '--search-lr: an evaluator reads no ann_file, so it cannot evaluate '
        'training images; give one such as FrequencyGroupMetric',
    )
    tested = innermost(config.val_dataloader.dataset)
    check(
        'pipeline' in tested,
        f'--search-lr: val_dataloader.dataset is a {tested.type} without a '
        'pipeline, by which held-out images are loaded; give it one dataset',
    )
    source = os.path.join(train.get('data_root') or '', train.ann_file)
    parts = _write_parts(config, train, source, folder, fraction, seed)
    kept, held_out, statistics = map(str, parts)
    validated = copy.deepcopy(train)
    for key in ('filter_cfg', 'indices'):
        validated.pop(key, None)
    validated.update(
        ann_file=held_out, test_mode=True, pipeline=tested.pipeline
    )
    config.val_dataloader.dataset = validated
    for evaluator in evaluators:
        evaluator.ann_file = held_out
    train.ann_file = kept
    hooks = config.get('default_hooks') or ConfigDict()
    hooks.class_statistics = dict(
        type='ClassStatisticsHook', class_statistics=statistics
    )
    config.default_hooks = hooks


def _write_parts(
    config: Config,
    train: ConfigDict,
    source: str,
    folder: Path,
    fraction: float,
    seed: int,
) -> tuple[Path, Path, Path]:
    """Write both parts of an annotation file, and the counts of the whole."""
    hook = config.get('default_hooks', {}).get('class_statistics') or {}
    counts = hook.get('class_statistics')
    identity: list[Any] = [fraction, seed, train.get('metainfo')]
    for path in filter(None, (source, counts)):
        identity.append(os.path.abspath(path))
        if os.path.exists(path):
            state = os.stat(path)
            identity += [state.st_size, state.st_mtime_ns]
    digest = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
    parts = (folder / 'images' / digest).resolve()
    files = tuple(
        parts / f'{name}.json'
        for name in ('kept', 'held_out', 'class_statistics')
    )
    if not all(path.exists() for path in files):
        backend = train.get('backend_args')
        with get_local_path(source, backend_args=backend) as path:
            content = read_json(path)
        is_held_out = hold_out_of_file(content, source, fraction, seed)
        for path, members in zip(files, (~is_held_out, is_held_out)):
            write_atomic(path, json.dumps(select_images(content, members)))
        count_classes(config).save(files[-1])
    return files  # type: ignore[return-value]
