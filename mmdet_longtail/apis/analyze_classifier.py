"""Comparison of trained classifiers per class, in training and in tests.

Shapes: C classes (foreground only).
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
    last_checkpoint,
    load_config,
)
from mmdet_longtail.apis.trained_detector import TrainedDetector, load_batches
from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.models.utils.classifier_recorder import (
    GRADIENTS,
    ClassifierRecorder,
    negative_to_positive,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.structures.class_statistics import check_bin_edges
from mmdet_longtail.utils.console import quiet, table_console
from mmdet_longtail.utils.fileio import read_text, write_atomic
from mmdet_longtail.utils.registry import innermost
from mmdet_longtail.utils.tables import format_cells, make_table, write_csv
from mmdet_longtail.visualization.classifier import TITLES, draw
from mmdet_longtail.visualization.figures import figure_bytes, rank_correlation

BIN_EDGES = (10, 100, 1000)
LOG_PREFIX = 'classifier/'
PRINTED = 'positive_rois negative_to_positive probability weight_norm'.split()
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

    Measured are gradients and probabilities in training, or the accuracy on
    test proposals, whose bins by instance_count default to `BIN_EDGES`. The
    split, 'train' or 'val', defaults to 'val' for proposals. Checkpoints may
    be work directories, named as by `name_detectors`. One that carries no
    config has the model of the given config.

    Raises:
        LongTailError: If a file is missing or broken, files do not fit each
            other, or the images give nothing to measure.
    """
    out = Path(out)
    check(
        out.is_dir() or not out.exists(),
        f'{out}: is a file; give a folder as --out',
    )
    check(
        bin_edges is None or proposals,
        '--bin-edges: are those of the accuracy on proposals; add --proposals',
    )
    bin_edges = bin_edges or BIN_EDGES
    check_bin_edges(bin_edges, '--bin-edges')
    split = split or ('val' if proposals else 'train')
    loaded = load_config(config, cfg_options)
    paths = [Path(path) for path in checkpoints]
    paths = [last_checkpoint(p) if p.is_dir() else p for p in paths]
    names = name_detectors(paths, names)
    init_default_scope(loaded.get('default_scope', 'mmdet'))
    meter: Any = ProposalAccuracy if proposals else ClassifierRecorder
    statistics = None
    found = {}
    with failures_explained(loaded):
        dataset = _build_dataset(loaded, config, split)
        num_images = min(len(dataset), max_images or len(dataset))
        order = np.random.default_rng(SEED).permutation(len(dataset))
        images = Subset(dataset, np.sort(order[:num_images]).tolist())
        for path, name in zip(paths, names, strict=True):
            checkpoint = Checkpoint.load(path)
            statistics = statistics or checkpoint.class_statistics
            own = loaded
            if checkpoint.config is not None:
                own = checkpoint.require_config()
            model = TrainedDetector(checkpoint, own, dataset).build()
            set_random_seed(SEED)
            found[name] = meter(model)
            loader = loaded[f'{split}_dataloader']
            for data in load_batches(images, loader, name):
                found[name].add(data)
        if statistics is None:
            if split == 'val':
                dataset = _build_dataset(loaded, config, 'train')
            statistics = ClassStatistics.from_dataset(dataset)
    if proposals:
        _report_proposals(statistics, found, bin_edges, out)
    else:
        _report_training(statistics, found, out)
    print(f'{num_images} images; written to {out.resolve()}')


def _build_dataset(config: Config, path: str | Path, split: str) -> Any:
    """Build a dataset with boxes in the scale of the detector's input."""
    key = f'{split}_dataloader'
    check(
        config.get(key), f'{path}: has no {key}, which --split {split} reads'
    )
    settings = config[key].dataset
    if split == 'val':
        own = innermost(settings)
        own.pipeline = load_boxes_before_resize(own.pipeline)
        own.test_mode = False
    with quiet():
        return DATASETS.build(settings)


def _report_training(
    statistics: ClassStatistics,
    recorders: Mapping[str, ClassifierRecorder],
    out: Path,
) -> None:
    """Print means and correlations, and write the table and figures."""
    groups = [g for g in statistics.frequency_groups() if g.members.any()]
    found = {}
    rows, correlations = [], []
    columns: dict[str, list[Any]] = defaultdict(list)
    for name, recorder in recorders.items():
        found[name] = measures = recorder.measures()
        check(
            measures['positive_rois'].any(),
            f'{name}: no RoI of any class was sampled; are there boxes in '
            'these images?',
        )
        measures['negative_to_positive'] = negative_to_positive(measures)
        for group in groups:
            means: dict[str, Any] = {
                measure: _mean(measures[measure][group.members])
                for measure in TITLES
            }
            # A mean of ratios would follow classes of hardly any gradient.
            means['negative_to_positive'] = negative_to_positive(means)
            cells = format_cells([means[m] for m in PRINTED], '.3g', 'nan')
            rows.append([name, group.name, *cells])
        boxes, norms = statistics.instance_count, measures['weight_norm']
        correlations.append(
            f'{name}: rank correlation of weight_norm and instance_count '
            f'{rank_correlation(boxes, norms):.2f}'
        )
        columns['checkpoint'] += [name] * statistics.num_classes
        columns['name'] += statistics.class_names
        columns['image_count'] += statistics.image_count.tolist()
        columns['instance_count'] += boxes.tolist()
        columns['frequency_group'] += statistics.frequency_group()
        for measure in TITLES:
            form = '.0f' if measure == 'positive_rois' else '.6g'
            columns[measure] += format_cells(measures[measure], form)
    headings = ['checkpoint', 'group', *(m.replace('_', ' ') for m in PRINTED)]
    table_console().print(make_table(headings, rows, 'means over classes'))
    print(
        'negative to positive above 1: the gradient lowers the score of the '
        'class more than it raises it'
    )
    print(*correlations, sep='\n')
    write_csv(out / 'classifier.csv', columns)
    for measure in TITLES:
        path = out / f'{measure}.png'
        figure = draw(measure, statistics, found)
        write_atomic(path, figure_bytes(figure, path))


def _mean(values: np.ndarray) -> float:
    """Compute the mean of the values that are not NaN."""
    known = values[~np.isnan(values)]
    return known.mean() if len(known) else np.nan


def _report_proposals(
    statistics: ClassStatistics,
    found: Mapping[str, ProposalAccuracy],
    bin_edges: Sequence[float],
    out: Path,
) -> None:
    """Print and write the accuracy on proposals per group of labels."""
    rows, lines = [], []
    for name, accuracy in found.items():
        check(
            accuracy.counts.any(),
            f'{name}: the detector made no proposals in these images; is it '
            'trained, and is model.test_cfg.rpn.max_per_img above 0?',
        )
        for group, members in label_groups(statistics, bin_edges).items():
            number, *percents = accuracy.over(members)
            row = [name, group, members[:-1].sum(), number]
            rows.append([*row, *format_cells(percents)])
            lines.append([*row, *format_cells(percents, '.2f', '-')])
    headings = ['checkpoint', 'group', 'classes', 'proposals']
    headings += ['accuracy', 'class_accuracy']
    title = 'classifier accuracy on test proposals, percent'
    table_console().print(make_table(headings, lines, title))
    for name, accuracy in found.items():
        if not accuracy.predicts_background:
            print(
                f'{name}: its loss gives background the probability 0, so it '
                'predicts a class for every proposal; compare class_accuracy'
            )
    write_csv(out / 'proposal_accuracy.csv', dict(zip(headings, zip(*rows))))


def summarize_logs(
    work_dirs: Sequence[str | Path],
    ranges: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Print the sums of what ClassifierMonitorHook logged per group.

    Ranges of iterations include both ends. None is the whole log.

    Raises:
        LongTailError: If nothing was logged, or nothing in a range.
    """
    rows = []
    for work_dir in work_dirs:
        logged = _read_log(work_dir)
        for first, last in ranges or [(min(logged), max(logged))]:
            chosen = [s for i, s in logged.items() if first <= i <= last]
            check(
                chosen,
                f'--iterations {first}-{last}: {work_dir} has no log of them, '
                f'only of {min(logged)} to {max(logged)}',
            )
            sums: dict[str, dict[str, float]] = {}
            for scalars in chosen:
                for key, value in scalars.items():
                    group, measure = key.split('/')
                    own = sums.setdefault(group, defaultdict(float))
                    own[measure] += value
            run = [Path(work_dir).resolve().name, f'{first}-{last}']
            for group, total in sums.items():
                of_objects = {**total, GRADIENTS[-1]: 0}
                ratios = [
                    float(negative_to_positive(m)) for m in (total, of_objects)
                ]
                rois = f'{total["positive_rois"]:,.0f}'
                rows.append([*run, group, *format_cells(ratios, '.3g'), rois])
    headings = ['training', 'iterations', 'group', 'negative to positive']
    headings += ['foreground to positive', 'positive rois']
    table_console().print(make_table(headings, rows))


def _read_log(work_dir: str | Path) -> dict[int, dict[str, float]]:
    """Read the scalars of the classifier by iteration, the last of each."""
    logged = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        *lines, last = read_text(path).split('\n')
        for number, line in enumerate([*lines, last], 1):
            try:
                scalars = dict(json.loads(line or '{}'))
            except (ValueError, TypeError):
                if line is last:  # it is being written, or was cut off
                    continue
                raise LongTailError(
                    f'{path}: line {number} is not a JSON object, expected a '
                    'log of mmengine; remove the line, or the file'
                ) from None
            own = {
                key.removeprefix(LOG_PREFIX): value
                for key, value in scalars.items()
                if key.startswith(LOG_PREFIX)
            }
            if own and 'step' in scalars:
                logged[scalars['step']] = own
    check(
        logged,
        f'{work_dir}: no */vis_data/scalars.json with scalars of {LOG_PREFIX};'
        ' train with default_hooks.classifier_monitor.type='
        'ClassifierMonitorHook and give the work directory',
    )
    return logged
