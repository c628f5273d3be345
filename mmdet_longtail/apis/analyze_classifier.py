"""Comparison of trained classifiers by class, in training and in tests.

Shapes: C classes (foreground only).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from torch.utils.data import Subset

from mmdet_longtail.apis.evaluation import name_detectors
from mmdet_longtail.apis.proposal_accuracy import (
    ProposalAccuracy,
    label_groups,
)
from mmdet_longtail.apis.runner import (
    failures_explained,
    innermost,
    last_checkpoint,
    load_config,
)
from mmdet_longtail.apis.trained_detector import (
    TrainedDetector,
    build_loader,
    show_progress,
)
from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.classifier_recorder import (
    GRADIENTS,
    ClassifierRecorder,
    negative_to_positive,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.structures.class_statistics import check_bin_edges
from mmdet_longtail.utils.console import quiet, table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.tables import format_cells, make_table, write_csv
from mmdet_longtail.visualization.classifier import (
    TITLES,
    draw,
    rank_correlations,
)
from mmdet_longtail.visualization.figures import figure_bytes

BIN_EDGES = (10, 100, 1000)
LOG_PREFIX = 'classifier/'
SEED = 0


def analyze_classifiers(
    config: str | Path,
    checkpoints: Sequence[str | Path],
    out: str | Path,
    names: Sequence[str] | None = None,
    split: str | None = None,
    proposals: bool = False,
    bin_edges: Sequence[float] | None = None,
    max_images: int | None = None,
    cfg_options: Mapping[str, Any] | None = None,
) -> None:
    """Measure classifiers on images of a config, and write the results.

    Args:
        config (str | Path): Config of the images, and of the model of a
            checkpoint that carries no config.
        checkpoints (Sequence[str | Path]): Checkpoints or work directories.
        out (str | Path): Folder to write.
        names (Sequence[str], optional): See `name_detectors`.
        split (str, optional): 'train' or 'val', by default 'val' for
            proposals and 'train' otherwise.
        proposals (bool): Whether to measure the accuracy on test proposals
            in place of gradients and probabilities in training.
        bin_edges (Sequence[float], optional): Bins by instance_count of the
            accuracy on proposals, by default `BIN_EDGES`.
        max_images (int, optional): Images to draw; None takes all.
        cfg_options (Mapping, optional): Overrides of the config.

    Raises:
        LongTailError: If a file is missing or broken, files do not fit each
            other, or the images give nothing to measure.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise LongTailError(f'{out}: is a file; give a folder as --out')
    if bin_edges is not None and not proposals:
        raise LongTailError(
            '--bin-edges: are those of the accuracy on proposals; add '
            '--proposals'
        )
    check_bin_edges(bin_edges or BIN_EDGES, '--bin-edges')
    split = split or ('val' if proposals else 'train')
    loaded = load_config(config, cfg_options)
    paths = [Path(path) for path in checkpoints]
    paths = [last_checkpoint(p) if p.is_dir() else p for p in paths]
    names = name_detectors(paths, names)
    init_default_scope(loaded.get('default_scope', 'mmdet'))
    measure: Any = _measure_proposals if proposals else _measure_training
    statistics = None
    found = {}
    with failures_explained(loaded):
        dataset = _build_dataset(loaded, config, split)
        num_images = min(len(dataset), max_images or len(dataset))
        order = np.random.default_rng(SEED).permutation(len(dataset))
        loader = build_loader(
            Subset(dataset, np.sort(order[:num_images]).tolist()),
            loaded[f'{split}_dataloader'],
        )
        for path, name in zip(paths, names, strict=True):
            checkpoint = Checkpoint.load(path)
            statistics = statistics or checkpoint.class_statistics
            own = loaded
            if checkpoint.config is not None:
                own = checkpoint.require_config()
            model = TrainedDetector(checkpoint, own, dataset).build()
            set_random_seed(SEED)
            found[name] = measure(model, show_progress(loader, name), name)
        if statistics is None:
            if split == 'val':
                dataset = _build_dataset(loaded, config, 'train')
            statistics = ClassStatistics.from_dataset(dataset)
    if proposals:
        _report_proposals(statistics, found, bin_edges or BIN_EDGES, out)
    else:
        _report_training(statistics, found, out)
    print(f'{num_images} images; written to {out.resolve()}')


def _build_dataset(config: Config, path: str | Path, split: str) -> Any:
    """Build a dataset with boxes in the scale of the detector's input."""
    key = f'{split}_dataloader'
    if not config.get(key):
        raise LongTailError(
            f'{path}: has no {key}, which --split {split} reads'
        )
    settings = config[key].dataset
    if split == 'val':
        own = innermost(settings)
        own.pipeline = load_boxes_before_resize(own.pipeline)
        own.test_mode = False
    with quiet():
        return DATASETS.build(settings)


def _measure_training(
    model: Any, batches: Iterable[Any], name: str
) -> dict[str, np.ndarray]:
    """Compute the measures (C,) of `TITLES` in the training loss."""
    recorder = ClassifierRecorder(model)
    recorder.start()
    for data in batches:
        model(**model.data_preprocessor(data, training=True), mode='loss')
    recorder.stop()
    measures = recorder.measures()
    if not measures['positive_rois'].any():
        raise LongTailError(
            f'{name}: no RoI of any class was sampled; are there boxes in '
            'these images?'
        )
    measures['negative_to_positive'] = negative_to_positive(measures)
    return {measure: measures[measure] for measure in TITLES}


def _measure_proposals(
    model: Any, batches: Iterable[Any], name: str
) -> ProposalAccuracy:
    """Count the proposals of a test that are classified correctly."""
    accuracy = ProposalAccuracy(model)
    for data in batches:
        accuracy.add(data)
    if not accuracy.proposals.any():
        raise LongTailError(
            f'{name}: the detector made no proposals in these images; is it '
            'trained, and is model.test_cfg.rpn.max_per_img above 0?'
        )
    return accuracy


def _report_training(
    statistics: ClassStatistics,
    found: dict[str, dict[str, np.ndarray]],
    out: Path,
) -> None:
    """Print means and correlations, and write the table and figures."""
    rows = []
    for name, measures in found.items():
        for group in statistics.frequency_groups():
            if not group.members.any():
                continue
            means = {
                measure: _mean(values[group.members])
                for measure, values in measures.items()
            }
            # A mean of ratios would follow classes of hardly any gradient.
            means['negative_to_positive'] = negative_to_positive(means)
            rows.append(
                [name, group.name, *(f'{mean:.3g}' for mean in means.values())]
            )
    headings = ['checkpoint', 'group', *TITLES]
    headings = [heading.replace('_', ' ') for heading in headings]
    table_console().print(make_table(headings, rows, 'means over classes'))
    for name, correlation in rank_correlations(statistics, found).items():
        print(
            f'{name}: rank correlation of weight_norm and instance_count '
            f'{correlation:.2f}'
        )
    repeats = len(found)
    columns: dict[str, Any] = {
        'checkpoint': np.repeat(list(found), statistics.num_classes),
        'name': statistics.class_names * repeats,
        'image_count': np.tile(statistics.image_count, repeats),
        'instance_count': np.tile(statistics.instance_count, repeats),
        'frequency_group': statistics.frequency_group() * repeats,
    }
    for measure in TITLES:
        values = np.concatenate([own[measure] for own in found.values()])
        form = '.0f' if measure == 'positive_rois' else '.6g'
        columns[measure] = format_cells(values, form)
    write_csv(out / 'classifier.csv', columns)
    for measure in TITLES:
        path = out / f'{measure}.png'
        figure = draw(measure, statistics, found)
        write_atomic(path, figure_bytes(figure, path))


def _mean(values: np.ndarray) -> np.ndarray:
    """Compute the mean of the values that are not NaN."""
    known = values[~np.isnan(values)]
    return known.mean() if len(known) else np.array(np.nan)


def _report_proposals(
    statistics: ClassStatistics,
    found: dict[str, ProposalAccuracy],
    bin_edges: Sequence[float],
    out: Path,
) -> None:
    """Print and write the accuracy on proposals per group of labels."""
    groups = label_groups(statistics, bin_edges)
    columns = ['proposals', 'accuracy', 'class_accuracy']
    rows, lines = [], []
    for name, accuracy in found.items():
        values = [accuracy.over(labels) for labels in groups.values()]
        for (group, labels), own in zip(groups.items(), values):
            num_proposals, *shares = own.values()
            cells = [labels[:-1].sum(), num_proposals, *format_cells(shares)]
            rows.append([name, group, *cells])
        for column in columns:
            form = ',d' if column == 'proposals' else '.2f'
            cells = format_cells([own[column] for own in values], form, '-')
            lines.append([name, column.replace('_', ' '), *cells])
    headings = ['checkpoint', '', *(g.replace('_', ' ') for g in groups)]
    title = 'test proposals that the classifier gets right, percent'
    table_console().print(make_table(headings, lines, title))
    for name, accuracy in found.items():
        if not accuracy.predicts_background:
            print(
                f'{name}: its loss gives background the probability 0, so it '
                'predicts a class for every proposal; compare class_accuracy'
            )
    headings = ['checkpoint', 'group', 'classes', *columns]
    write_csv(out / 'proposal_accuracy.csv', dict(zip(headings, zip(*rows))))


def summarize_logs(
    work_dirs: Sequence[str | Path],
    ranges: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Print the sums of what ClassifierMonitorHook logged per group.

    Args:
        work_dirs (Sequence[str | Path]): Trainings with the hook.
        ranges (Sequence[tuple[int, int]], optional): First and last
            iterations, both inclusive. None is the whole log.

    Raises:
        LongTailError: If nothing was logged, or nothing in a range.
    """
    rows = []
    for work_dir in work_dirs:
        logged = _read_log(work_dir)
        for first, last in ranges or [(min(logged), max(logged))]:
            sums: dict[str, dict[str, np.ndarray]] = {}
            for step, scalars in logged.items():
                if not first <= step <= last:
                    continue
                for key, value in scalars.items():
                    group, measure = key.split('/')
                    own = sums.setdefault(group, {})
                    own[measure] = own.get(measure, np.zeros(())) + value
            if not sums:
                raise LongTailError(
                    f'--iterations {first}-{last}: {work_dir} has logged '
                    f'nothing then, but from {min(logged)} to {max(logged)}'
                )
            run = [Path(work_dir).resolve().name, f'{first}-{last}']
            for group, own in sums.items():
                of_objects = own | {GRADIENTS[-1]: np.zeros(())}
                ratios = [
                    float(negative_to_positive(m)) for m in (own, of_objects)
                ]
                cells = [
                    *format_cells(ratios, '.3g'),
                    f'{own["positive_rois"]:,.0f}',
                ]
                rows.append([*run, group, *cells])
    headings = ['training', 'iterations', 'group', 'negative to positive']
    headings += ['foreground to positive', 'positive rois']
    table_console().print(make_table(headings, rows))


def _read_log(work_dir: str | Path) -> dict[int, dict[str, float]]:
    """Read the scalars of the classifier by iteration, the last of each."""
    logged = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            scalars = json.loads(line)
            own = {
                key.removeprefix(LOG_PREFIX): value
                for key, value in scalars.items()
                if key.startswith(LOG_PREFIX)
            }
            if own:
                logged[scalars['step']] = own
    if not logged:
        raise LongTailError(
            f'{work_dir}: no */vis_data/scalars.json with scalars of '
            f'{LOG_PREFIX}; train with default_hooks.classifier_monitor.type='
            'ClassifierMonitorHook and give the work directory'
        )
    return logged
