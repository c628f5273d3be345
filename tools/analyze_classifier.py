r"""Show how a detector's classifier treats frequent and rare classes.

    python tools/analyze_classifier.py softmax.py \
        work_dirs/softmax work_dirs/eql --names softmax EQL --out analysis

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
    weight_norm          length of the class's row of the classifier

Prints the means over rare, common and frequent classes.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

try:
    from mmdet_longtail.command_line import (
        check_checkpoint,
        failures_explained,
        last_checkpoint,
        load_config,
        one_line,
        run,
    )
except ImportError as error:
    sys.exit(f'error: {error}')
import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader, Runner, set_random_seed
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Subset

from mmdet_longtail.class_names import check_same_classes, dataset_classes
from mmdet_longtail.classifier_analysis import (
    GRADIENTS,
    ClassifierRecorder,
    classifier_heads,
    negative_to_positive,
)
from mmdet_longtail.colors import GROUP_COLORS
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.files import figure_bytes, write_whole
from mmdet_longtail.hooks.class_statistics import CHECKPOINT_KEY
from mmdet_longtail.result_files import positive
from mmdet_longtail.statistics import ClassStatistics

TITLES = {
    'positive_rois': 'RoIs of the class',
    'gradient_positive': '|dL/dz| from RoIs of the class',
    'gradient_foreground_negative': '|dL/dz| from RoIs of other classes',
    'gradient_background_negative': '|dL/dz| from background RoIs',
    'negative_to_positive': '|dL/dz| from all negatives / from positives',
    'probability': 'mean probability of the class on its RoIs',
    'weight_norm': "length of the class's weights",
}
LINEAR = ('probability', 'weight_norm')
INK = '#333333'
SEED = 0


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='config file, whose data is used')
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='checkpoint, or a work directory with one',
    )
    parser.add_argument('--split', choices=['train', 'val'], default='train')
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='where to write'
    )
    parser.add_argument(
        '--max-images',
        type=positive,
        metavar='N',
        help='images to look at, drawn at random, the same for all '
        'checkpoints (default: all)',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='what the checkpoints are called (default: their folders)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override keys of the config; lists as key="[a,b]" or key=a,b',
    )
    return parser.parse_args()


# -- what comes in ----------------------------------------------------------


def name_checkpoints(
    paths: Sequence[Path], names: Sequence[str] | None
) -> list[str]:
    """Give each checkpoint a name.

    Raises:
        LongTailError: If there are more or fewer names than checkpoints, or
            two are the same.
    """
    if names is None:
        folders = [path.resolve().parent.name for path in paths]
        is_clear = len(set(folders)) == len(folders)
        return folders if is_clear else list(map(str, paths))
    if len(set(names)) != len(paths) or len(names) != len(paths):
        raise LongTailError(
            f'--names: expected {len(paths)} different names, one a '
            f'checkpoint, found {" ".join(names)}'
        )
    return list(names)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint, quietly.

    Raises:
        LongTailError: If there is none.
    """
    with redirect_stdout(io.StringIO()):
        check_checkpoint(str(path))
        return CheckpointLoader.load_checkpoint(str(path), 'cpu')


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
        is_boxes = [t.type == 'LoadAnnotations' for t in settings.pipeline]
        boxes = [t for t, its in zip(settings.pipeline, is_boxes) if its]
        rest = [t for t, its in zip(settings.pipeline, is_boxes) if not its]
        default = dict(type='LoadAnnotations', with_bbox=True)
        settings.pipeline = rest[:1] + (boxes or [default]) + rest[1:]
        settings.test_mode = False
    with redirect_stdout(io.StringIO()):
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
    config: Config, path: Path, checkpoint: dict[str, Any], dataset: Any
) -> nn.Module:
    """Build the detector of a checkpoint, ready for its training loss.

    Args:
        config (Config): Has the model of a checkpoint without a config.
        path (Path): The checkpoint.
        checkpoint (dict): Its content.
        dataset (BaseDataset): Its classes have to be the checkpoint's.

    Raises:
        LongTailError: If there is no classifier, or checkpoint, model and
            dataset do not fit.
    """
    meta = checkpoint.get('meta', {})
    if meta.get('cfg'):
        config = Config.fromstring(meta['cfg'], '.py')
    with redirect_stdout(io.StringIO()):
        model = revert_sync_batchnorm(MODELS.build(config.model))
    heads = classifier_heads(model)
    classes = dataset_classes(dataset)
    trained = (meta.get('dataset_meta') or {}).get('classes')
    if classes is not None and trained is not None:
        check_same_classes(classes, trained, 'the data', str(path))
    if classes is not None and len(classes) != heads[0].num_classes:
        raise LongTailError(
            f'{path}: its model has {heads[0].num_classes} classes, but the '
            f'data has {len(classes)}: use the ones of the same data'
        )
    try:
        found = model.load_state_dict(
            checkpoint.get('state_dict', checkpoint), strict=False
        )
    except RuntimeError as error:
        raise LongTailError(
            f'{path}: does not fit the model of the config ({one_line(error)})'
        ) from None
    lacking = set(found.missing_keys) & dict(model.named_parameters()).keys()
    if lacking:
        raise LongTailError(
            f'{path}: lacks {len(lacking)} weights of the model, such as '
            f'{min(lacking)}; is it a checkpoint of this config?'
        )
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


def write_csv(
    statistics: ClassStatistics, found: dict[str, dict[str, np.ndarray]]
) -> str:
    """Give the rows of all checkpoints; a value that there is not is empty.

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
    """Give the means over the classes of each group.

    The ratio is that of the mean gradients, not a mean of ratios, which a
    class with hardly any positive gradient would decide.
    """
    table = Table('checkpoint', 'group', box=None, title='means over classes')
    for measure in TITLES:
        table.add_column(measure.replace('_', ' '), justify='right')
    groups = np.array(statistics.frequency_group())
    for checkpoint, measures in found.items():
        for group in ('rare', 'common', 'frequent'):
            members = groups == group
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
                checkpoint, group, *(f'{means[name]:.3g}' for name in TITLES)
            )
    return table


# -- pictures ---------------------------------------------------------------


def running_median(values: np.ndarray) -> np.ndarray:
    """Median of about a fifteenth of the classes around each, (C,)."""
    reach = max(len(values) // 30, 1)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    medians = np.full(len(values), np.nan)
    is_known = ~np.isnan(windows).all(1)
    medians[is_known] = np.nanmedian(windows[is_known], axis=1)
    return medians


def draw(
    measure: str,
    statistics: ClassStatistics,
    found: dict[str, dict[str, np.ndarray]],
) -> Figure:
    """Draw a measure of all checkpoints, classes with most images first."""
    order = np.argsort(-statistics.image_count, kind='stable')
    groups = np.array(statistics.frequency_group())[order]
    rank = np.arange(len(order)) + 0.5
    figure = Figure(figsize=(9, 4.5), layout='constrained')
    axes = figure.subplots()
    colors = colormaps['Dark2']
    values = {name: each[measure][order] for name, each in found.items()}
    for index, (name, heights) in enumerate(values.items()):
        own = colors(index % colors.N)
        axes.plot(rank, heights, '.', color=own, alpha=0.4, markersize=5)
        axes.plot(
            rank, running_median(heights), color=own, linewidth=2, label=name
        )
    known = np.concatenate(list(values.values()))
    known = known[~np.isnan(known)]
    if measure not in LINEAR and (known > 0).any():
        lowest = known[known > 0].min()
        if lowest == known.min():
            axes.set_yscale('log')
            axes.set_ylim(lowest / 2, 3 * known.max())
        else:  # Zero has a place too: where EQL takes a gradient away.
            axes.set_yscale('symlog', linthresh=lowest)
            axes.set_ylim(0, 3 * known.max())
    if measure == 'probability':
        axes.set_ylim(0, 1.08)
    if measure == 'weight_norm':
        axes.set_ylim(0, 1.15 * known.max())
    if measure == 'negative_to_positive':
        axes.axhline(1, color=INK, linestyle='--', linewidth=1)
    strip = axes.get_xaxis_transform()
    for group, color in GROUP_COLORS.items():
        places = np.flatnonzero(groups == group)
        if len(places) == 0:
            continue
        start, end = places[0], places[-1] + 1
        axes.axvspan(start, end, 0.985, 1, color=color, linewidth=0)
        axes.axvline(start, color=INK, linewidth=0.8, alpha=0.4)
        axes.text(
            (start + end) / 2,
            0.965,
            f'{group}: {len(places):,}',
            color=color,
            transform=strip,
            ha='center',
            va='top',
            fontweight='bold',
        )
    axes.set_xlim(0, len(order))
    axes.set_xlabel(
        'classes, most training images first; lines: running median'
    )
    axes.set_ylabel(TITLES[measure])
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        loc='lower center',
        bbox_to_anchor=(0.5, 1),
        ncols=min(len(found), 3),
        frameon=False,
    )
    return figure


def main() -> None:
    """Look at each checkpoint, then write everything."""
    args = parse_args()
    out = Path(args.out)
    if out.exists() and not out.is_dir():
        raise LongTailError(f'{out}: is a file; give a folder as --out')
    config = load_config(args.config, args.cfg_options)
    paths = [Path(path) for path in args.checkpoints]
    paths = [last_checkpoint(p) if p.is_dir() else p for p in paths]
    names = name_checkpoints(paths, args.names)
    init_default_scope(config.get('default_scope', 'mmdet'))
    statistics = None
    found = {}
    with failures_explained(config):
        dataset = build_dataset(config, args.config, args.split)
        num_images = min(len(dataset), args.max_images or len(dataset))
        loader = build_loader(config, args.split, dataset, num_images)
        for path, name in zip(paths, names, strict=True):
            checkpoint = read_checkpoint(path)
            model = build_model(config, path, checkpoint, dataset)
            if statistics is None and CHECKPOINT_KEY in checkpoint:
                statistics = ClassStatistics.from_dict(
                    checkpoint[CHECKPOINT_KEY]
                )
            found[name] = analyze(model, loader, name)
        if statistics is None:
            if args.split == 'val':
                dataset = build_dataset(config, args.config, 'train')
            statistics = ClassStatistics.from_dataset(dataset)
    pictures = {
        measure: figure_bytes(draw(measure, statistics, found), 'a.png')
        for measure in TITLES
    }
    Console(width=None if sys.stdout.isatty() else 200).print(
        table_of_means(statistics, found)
    )
    write_whole(out / 'classifier.csv', write_csv(statistics, found))
    for measure, picture in pictures.items():
        write_whole(out / f'{measure}.png', picture)
    print(f'{num_images} images; written to {out.resolve()}')


if __name__ == '__main__':
    run(main)
