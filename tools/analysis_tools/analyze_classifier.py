r"""Show how a detector's classifier treats frequent and rare classes.

    longtail analyze softmax.py \
        work_dirs/softmax work_dirs/eql --names softmax EQL --out analysis
    longtail analyze softmax.py \
        work_dirs/softmax work_dirs/bags --proposals --out analysis

CONFIG says which images: those of its training set, as it trains on them, or
with --split val those of its validation set. A checkpoint that training wrote
carries its own config, whose model and loss are looked at; another one takes
the model of CONFIG. The images go through the detector's training loss, with
RoIs sampled as in training; no weight changes, and normalisation layers and
dropout are as in a test.

Writes into the folder --out classifier.csv, a row a class and checkpoint, and
a picture of each of its measures, classes with most images first:

    positive_rois        sampled RoIs of the class
    gradient_*           |dL/dz| of the class's score, summed over the RoIs of
                         an average batch that are of the class (positive), of
                         another class (foreground_negative), of none
                         (background_negative)
    negative_to_positive  both negatives over positive; above 1 they win
    probability          mean over the class's RoIs of its probability
    weight_norm          length of the class's row of the classifier; drawn
                         over the number of training boxes

Prints the means over rare, common and frequent classes, and the rank
correlation of weight_norm and the number of training boxes.

With --proposals, looks at a test in the place of the training loss, on the
validation set unless --split train: of the RPN's proposals (as many an image
as test_cfg.rpn.max_per_img says), how many does the classifier get right?
Each has the class of the object that it overlaps by an IoU of at least 0.5,
or is background. Writes proposal_accuracy.csv, a row a checkpoint and group
of classes, and prints it:

    proposals            on which the numbers rest
    accuracy             percent whose most probable class, or background, is
                         the right one
    class_accuracy       percent whose most probable class is the right one,
                         whatever the probability of background
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Subset

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
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cfg_options,
    command_parser,
    positive_int,
)
from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.models.utils.classifier_recorder import (
    GRADIENTS,
    ClassifierRecorder,
    negative_to_positive,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.structures.class_statistics import check_bin_edges
from mmdet_longtail.utils.class_names import dataset_classes
from mmdet_longtail.utils.console import quiet, table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.visualization.classifier import (
    TITLES,
    draw,
    rank_correlations,
)
from mmdet_longtail.visualization.figures import figure_bytes

BIN_EDGES = (10, 100, 1000)
SEED = 0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    parser.add_argument('config', help='config file, whose data is used')
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='checkpoint, or a work directory with one',
    )
    parser.add_argument(
        '--proposals',
        action='store_true',
        help='look at the accuracy on test proposals',
    )
    parser.add_argument(
        '--split',
        choices=['train', 'val'],
        help='whose images (default: train; with --proposals val)',
    )
    parser.add_argument(
        '--bin-edges',
        type=float,
        nargs='+',
        metavar='EDGE',
        help='bins by instance_count that --proposals has an accuracy of '
        '(default: 10 100 1000)',
    )
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='where to write'
    )
    parser.add_argument(
        '--max-images',
        type=positive_int,
        metavar='N',
        help='images to look at, drawn at random, the same for all '
        'checkpoints (default: all)',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='what the checkpoints are called (default: their folders)',
    )
    add_cfg_options(parser)
    return parser.parse_args()


# -- what comes in ----------------------------------------------------------


def build_dataset(config: Config, path: str, split: str) -> Any:
    """Build the images of a split, with their boxes.

    Validation images get no augmentation, and boxes in the scale of the
    image: a test reads them as they are in the file, after it resized the
    image.

    Raises:
        LongTailError: If the config has no such data.
    """
    key = f'{split}_dataloader'
    if not config.get(key):
        raise LongTailError(
            f'{path}: has no {key}, which --split {split} reads'
        )
    settings = config[key].dataset
    if split == 'val':
        if 'pipeline' not in settings:
            raise LongTailError(
                f'{path}: {key}.dataset has no pipeline (it is a '
                f'{settings.get("type")}); use --split train'
            )
        settings.pipeline = load_boxes_before_resize(settings.pipeline)
        settings.test_mode = False
    with quiet():
        return DATASETS.build(settings)


def build_loader(
    config: Config, split: str, dataset: Any, num_images: int
) -> DataLoader:
    """Load the same images each time, drawn from the whole set."""
    settings = config[f'{split}_dataloader']
    order = np.random.default_rng(SEED).permutation(len(dataset))
    return Runner.build_dataloader(
        dict(
            dataset=Subset(dataset, np.sort(order[:num_images]).tolist()),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=settings.get('batch_size', 1),
            num_workers=settings.get('num_workers', 0),
        ),
        seed=SEED,
    )


def build_model(
    config: Config, checkpoint: Checkpoint, dataset: Any
) -> nn.Module:
    """Build the detector of a checkpoint, ready for its training loss.

    Args:
        config (Config): Has the model of a checkpoint without a config.
        checkpoint (Checkpoint): Its weights are loaded.
        dataset (BaseDataset): Its classes have to be the checkpoint's.

    Raises:
        LongTailError: If there is no classifier, or checkpoint, model and
            dataset do not fit.
    """
    if checkpoint.config is not None:
        config = checkpoint.require_config()
    with quiet():
        model = revert_sync_batchnorm(MODELS.build(config.model))
    [head, *_] = classifier_heads(model).values()
    classes = dataset_classes(dataset)
    checkpoint.check_classes(classes, 'the data')
    if classes is not None and len(classes) != head.num_classes:
        raise LongTailError(
            f'{checkpoint.source}: its model has {head.num_classes} '
            f'classes, but the data has {len(classes)}: use the ones of the '
            'same data'
        )
    checkpoint.load_into(model)
    return model.requires_grad_(False).eval().to(get_device())


# -- what is found ----------------------------------------------------------


def analyze(
    model: Any, loader: DataLoader, name: str
) -> dict[str, np.ndarray]:
    """Run images through the training loss, and give each measure (C,).

    Raises:
        LongTailError: If no RoI was sampled.
    """
    recorder = ClassifierRecorder(model)
    recorder.start()
    set_random_seed(SEED)
    for data in track(loader, name, console=Console(file=sys.stdout)):
        data = model.data_preprocessor(data, training=True)
        model(**data, mode='loss')
    recorder.stop()
    measures = recorder.measures()
    if not measures['positive_rois'].any():
        raise LongTailError(
            f'{name}: no RoI of any class was sampled; are there boxes in '
            'these images?'
        )
    columns = {}
    for measure, values in measures.items():
        columns[measure] = values
        if measure == GRADIENTS[-1]:
            columns['negative_to_positive'] = negative_to_positive(measures)
    return columns


def look_at_proposals(
    model: Any, loader: DataLoader, name: str
) -> ProposalAccuracy:
    """Run images through a test, and count what it says of proposals.

    Raises:
        LongTailError: If there were none.
    """
    accuracy = ProposalAccuracy(model)
    set_random_seed(SEED)
    for data in track(loader, name, console=Console(file=sys.stdout)):
        accuracy.add(data)
    if not accuracy.proposals.any():
        raise LongTailError(
            f'{name}: the detector made no proposals in these images; is it '
            'trained, and is model.test_cfg.rpn.max_per_img above 0?'
        )
    return accuracy


# -- what goes out ----------------------------------------------------------


def write_csv(
    statistics: ClassStatistics, found: dict[str, dict[str, np.ndarray]]
) -> str:
    """Return the rows of all checkpoints; missing values are empty.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        found (dict): The measures of each checkpoint.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(
        [
            'checkpoint',
            'name',
            'image_count',
            'instance_count',
            'frequency_group',
            *TITLES,
        ]
    )
    groups = statistics.frequency_group()
    for checkpoint, measures in found.items():
        for c, name in enumerate(statistics.class_names):
            writer.writerow(
                [
                    checkpoint,
                    name,
                    statistics.image_count[c],
                    statistics.instance_count[c],
                    groups[c],
                    int(measures['positive_rois'][c]),
                    *(
                        '' if np.isnan(values[c]) else f'{values[c]:.6g}'
                        for measure, values in measures.items()
                        if measure != 'positive_rois'
                    ),
                ]
            )
    return text.getvalue()


def table_of_means(
    statistics: ClassStatistics, found: dict[str, dict[str, np.ndarray]]
) -> Table:
    """Compute the mean over the classes per group.

    The ratio is that of the mean gradients, not a mean of ratios, which a
    class with hardly any positive gradient would decide.
    """
    table = Table('checkpoint', 'group', box=None, title='means over classes')
    for measure in TITLES:
        table.add_column(measure.replace('_', ' '), justify='right')
    for checkpoint, measures in found.items():
        for group in statistics.frequency_groups():
            members = group.members
            if not members.any():
                continue
            means = {
                measure: values[members][~np.isnan(values[members])].mean()
                if not np.isnan(values[members]).all()
                else np.array(np.nan)
                for measure, values in measures.items()
            }
            means['negative_to_positive'] = negative_to_positive(means)
            table.add_row(
                checkpoint,
                group.name,
                *(f'{means[name]:.3g}' for name in TITLES),
            )
    return table


def report_classifiers(
    statistics: ClassStatistics,
    found: dict[str, dict[str, np.ndarray]],
    out: Path,
) -> None:
    """Print means and correlations, and write the table and pictures."""
    pictures = {
        measure: figure_bytes(draw(measure, statistics, found), 'a.png')
        for measure in TITLES
    }
    table_console().print(table_of_means(statistics, found))
    correlations = rank_correlations(statistics, found)
    for name, correlation in correlations.items():
        print(
            f'{name}: rank correlation of weight_norm and instance_count '
            f'{correlation:.2f}'
        )
    write_atomic(out / 'classifier.csv', write_csv(statistics, found))
    for measure, picture in pictures.items():
        write_atomic(out / f'{measure}.png', picture)


def report_proposals(
    statistics: ClassStatistics,
    found: dict[str, ProposalAccuracy],
    bin_edges: Sequence[float],
    out: Path,
) -> None:
    """Print the accuracy on proposals of each group, and write it."""
    groups = label_groups(statistics, bin_edges)
    table = Table(
        'checkpoint',
        '',
        box=None,
        title='test proposals that the classifier gets right, percent',
    )
    for group in groups:
        table.add_column(group.replace('_', ' '), justify='right')
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    columns = ('proposals', 'accuracy', 'class_accuracy')
    writer.writerow(['checkpoint', 'group', 'classes', *columns])
    for name, accuracy in found.items():
        values = {g: accuracy.over(labels) for g, labels in groups.items()}
        for group, labels in groups.items():
            num_proposals, *shares = values[group].values()
            writer.writerow(
                [
                    name,
                    group,
                    labels[:-1].sum(),
                    num_proposals,
                    *('' if np.isnan(v) else f'{v:.6g}' for v in shares),
                ]
            )
        for column in columns:
            numbers = [value[column] for value in values.values()]
            form = ',d' if column == 'proposals' else '.2f'
            table.add_row(
                name,
                column.replace('_', ' '),
                *('-' if np.isnan(v) else format(v, form) for v in numbers),
            )
    table_console().print(table)
    for name, accuracy in found.items():
        if not accuracy.predicts_background:
            print(
                f'{name}: its loss gives background the probability 0, so it '
                'predicts a class for every proposal; compare class_accuracy'
            )
    write_atomic(out / 'proposal_accuracy.csv', text.getvalue())


def main() -> None:
    """Look at each checkpoint, then write everything."""
    args = parse_args()
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise LongTailError(f'{out}: is a file; give a folder as --out')
    if args.bin_edges is not None and not args.proposals:
        raise LongTailError(
            '--bin-edges: are those of the accuracy on proposals; add '
            '--proposals'
        )
    bin_edges = args.bin_edges or BIN_EDGES
    check_bin_edges(bin_edges, '--bin-edges')
    split = args.split or ('val' if args.proposals else 'train')
    config = load_config(args.config, args.cfg_options)
    paths = [Path(path) for path in args.checkpoints]
    paths = [last_checkpoint(p) if p.is_dir() else p for p in paths]
    names = name_detectors(paths, args.names)
    init_default_scope(config.get('default_scope', 'mmdet'))
    look: Any = look_at_proposals if args.proposals else analyze
    statistics = None
    found = {}
    with failures_explained(config):
        dataset = build_dataset(config, args.config, split)
        num_images = min(len(dataset), args.max_images or len(dataset))
        loader = build_loader(config, split, dataset, num_images)
        for path, name in zip(paths, names, strict=True):
            checkpoint = Checkpoint.load(path)
            model = build_model(config, checkpoint, dataset)
            statistics = statistics or checkpoint.class_statistics
            found[name] = look(model, loader, name)
        if statistics is None:
            if split == 'val':
                dataset = build_dataset(config, args.config, 'train')
            statistics = ClassStatistics.from_dataset(dataset)
    if args.proposals:
        report_proposals(statistics, found, bin_edges, out)
    else:
        report_classifiers(statistics, found, out)
    print(f'{num_images} images; written to {out.resolve()}')


if __name__ == '__main__':
    run(main)
