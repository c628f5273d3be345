r"""Show what detectors find in images, side by side, rare classes first.

    python tools/analysis_tools/show_detections.py softmax.bbox.json bags.bbox.json \
        --ann val.json --images images/ --train train.json --out shown

Takes COCO results, such as tools/test.py --out writes; or checkpoints and
work directories: a checkpoint carries its config, and is run here on the
images that are shown, and its counts say which classes are rare unless
--statistics or --train do. Writes one picture an image, and index.html.

Detections are matched as the evaluator does: by LVIS's rules the best 300 of
an image take part, by COCO's the best 100 of an image and class. Green are
true positives, red false positives, dashed the objects that were missed. No
score is too low to be drawn, but not everything is: all true positives; of
their classes the false positives that score no lower than the class's
lowest-scored true positive in the image; of all other classes together the
five best-scored false positives. What does not count is left out: by LVIS's
rules that is, among others, every class that an image was not checked for.
"""

import argparse
import difflib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.apis.detect import detect
from mmdet_longtail.apis.runner import last_checkpoint
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.result_files import add_data_options, given_statistics
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import Detections, GroundTruth
from mmdet_longtail.structures import Checkpoint
from mmdet_longtail.structures.annotations import image_file_name
from mmdet_longtail.structures.class_statistics import (
    RARE_MAX_IMAGE_COUNT,
    ClassStatistics,
)
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.visualization.detections import (
    NUM_FALSE,
    build_page,
    choose_images,
    describe,
    draw,
    judge,
    read_picture,
)
from mmdet_longtail.visualization.report import readable


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'detectors', nargs='+', metavar='RESULTS.json_OR_CHECKPOINT'
    )
    add_data_options(parser)
    parser.add_argument(
        '--images',
        required=True,
        metavar='FOLDER',
        help='where the file names in the annotations start',
    )
    parser.add_argument(
        '--out',
        required=True,
        metavar='FOLDER',
        help='folder to make for the pictures and index.html',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='what the detectors are called (default: their files or folders)',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=20,
        metavar='N',
        help='images to show at most (default: %(default)s); each class '
        'shows one, the rare classes first, then each another one',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='show these classes only, in images with objects of them',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='SCORE',
        help='draw what counts and scores at least this, in place of the '
        'rule above',
    )
    parser.add_argument(
        '--iou-thr',
        type=float,
        default=0.5,
        metavar='IOU',
        help='overlap from which a detection finds an object (default: '
        '%(default)s)',
    )
    return parser.parse_args()


# -- what comes in ----------------------------------------------------------


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is read."""
    if args.num_images < 1:
        raise LongTailError(
            f'--num-images: expected at least 1, found {args.num_images}'
        )
    if not 0 < args.iou_thr <= 1:
        raise LongTailError(
            '--iou-thr: expected more than 0 and at most 1, found '
            f'{args.iou_thr:g}'
        )
    if not os.path.isdir(args.images):
        raise LongTailError(
            f'{args.images}: no such folder; --images is where the file '
            'names in the annotations start'
        )
    out = Path(args.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise LongTailError(
            f'{out}: is there already; remove it, or give another --out'
        )


def name_detectors(
    paths: Sequence[Path], names: Sequence[str] | None
) -> list[str]:
    """Give each detector a name.

    Raises:
        LongTailError: If there are more or fewer names than detectors.
    """
    if names is None:
        short = [
            path.name.partition('.')[0]
            if path.suffix == '.json'
            else (path if path.is_dir() else path.parent).resolve().name
            for path in paths
        ]
        return (
            short if len(set(short)) == len(short) else list(map(str, paths))
        )
    if len(names) != len(paths):
        raise LongTailError(
            f'--names: expected {len(paths)} names, one a detector, found '
            f'{len(names)}'
        )
    return list(names)


def read_statistics(
    args: argparse.Namespace, checkpoints: Sequence[Checkpoint]
) -> ClassStatistics | None:
    """Read counts of the training set from the best place there is."""
    statistics = given_statistics(args)
    if statistics is not None:
        return statistics
    if checkpoints:
        return checkpoints[0].require_class_statistics()
    print(
        'No class counts as rare: add --statistics STATS.json '
        '(tools/class_statistics.py --out writes it) or --train TRAIN.json.'
    )
    return None


def find_classes(
    ground_truth: GroundTruth, names: Sequence[str] | None
) -> np.ndarray:
    """Mark the classes that were asked for, (C,) bool; None is all.

    Raises:
        LongTailError: Naming the first that there is not.
    """
    known = ground_truth.class_names
    for name in names or ():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean {close[0]!r}?' if close else 'check the name'
            raise LongTailError(
                f'--classes: {ground_truth.source} has no class {name!r}; '
                f'{hint}'
            )
    return np.isin(known, known if names is None else names)


def read_checked(
    ground_truth: GroundTruth, image: int, folder: str
) -> np.ndarray:
    """Read an image (height, width, 3) uint8, RGB.

    Raises:
        LongTailError: If it is missing, unreadable, or of another size than
            the annotations are.
    """
    entry = ground_truth.images[image]
    path = Path(folder, image_file_name(entry))
    picture = read_picture(path)
    height, width = picture.shape[:2]
    expected = [entry.get('width', width), entry.get('height', height)]
    if [width, height] != expected:
        raise LongTailError(
            f'{path}: is {width} x {height}, but {ground_truth.source} says '
            f'{expected[0]} x {expected[1]}; are these the images of the '
            'validation set?'
        )
    return picture


# -- what goes out ----------------------------------------------------------


def name_classes(
    labels: np.ndarray,
    ground_truth: GroundTruth,
    statistics: ClassStatistics | None,
) -> list[str]:
    """Name classes once each, with their training images if known."""
    names = []
    for c in dict.fromkeys(labels.tolist()):
        name = readable(ground_truth.class_names[c])
        if statistics is not None:
            name += f' ({statistics.image_count[c]})'
        names.append(name)
    return names


def write_pages(
    args: argparse.Namespace,
    names: Sequence[str],
    ground_truth: GroundTruth,
    statistics: ClassStatistics | None,
    several: Sequence[Detections],
    is_rare: np.ndarray,
    is_wanted: np.ndarray,
    images: Sequence[int],
    folder: Path,
) -> None:
    """Draw each image and write the page that shows them in order."""
    several_verdicts = [
        judge(ground_truth, d, args.iou_type, args.iou_thr, images)
        for d in several
    ]
    pictures = []
    for number, image in enumerate(
        track(images, 'Drawing', console=Console(file=sys.stdout)), 1
    ):
        picture = read_checked(ground_truth, image, args.images)
        panels = [
            describe(
                name,
                ground_truth,
                verdicts,
                args.iou_type,
                image,
                is_rare,
                is_wanted,
                args.score_thr,
            )
            for name, verdicts in zip(names, several_verdicts, strict=True)
        ]
        title = image_file_name(ground_truth.images[image])
        # A name for a file on any system.
        stem = re.sub(r'[^\w.-]+', '_', Path(title).stem)
        file = f'{number:0{len(str(len(images)))}}_{stem}.png'
        draw(picture, title, panels).savefig(folder / file)
        label = ground_truth.label[ground_truth.image == image]
        pictures.append(
            {
                'file': file,
                'title': title,
                'rare': name_classes(
                    label[is_rare[label]], ground_truth, statistics
                ),
                'others': name_classes(
                    label[~is_rare[label]], ground_truth, statistics
                ),
            }
        )
    page = build_page(
        args=args,
        names=names,
        pictures=pictures,
        rules=ground_truth.rules.upper(),
        num_images=len(ground_truth.images),
        statistics=statistics,
        rare_max=RARE_MAX_IMAGE_COUNT,
        num_false=NUM_FALSE,
    )
    write_atomic(folder / 'index.html', page)


def main() -> None:
    """Choose images, detect what is not detected yet, draw and write."""
    args = parse_args()
    check_options(args)
    paths = [Path(path) for path in args.detectors]
    names = name_detectors(paths, args.names)
    paths = [last_checkpoint(p) if p.is_dir() else p for p in paths]
    ground_truth = GroundTruth.load(args.ann, (args.iou_type,))
    is_wanted = find_classes(ground_truth, args.classes)
    checkpoints = {
        path: Checkpoint.load(path) for path in paths if path.suffix != '.json'
    }
    statistics = read_statistics(args, list(checkpoints.values()))
    image_count = np.zeros(ground_truth.num_classes, np.int64)
    is_rare = np.zeros(ground_truth.num_classes, bool)
    if statistics is not None:
        check_counted_classes(ground_truth, statistics)
        image_count = statistics.image_count
        is_rare = statistics.frequency_groups()[0].members
    images = choose_images(
        ground_truth, image_count, is_rare, is_wanted, args.num_images
    )
    if not images:
        raise LongTailError(
            f'{args.ann}: has no object of the classes to show'
        )
    for image in images:
        read_checked(ground_truth, image, args.images)
    several = [
        Detections.load(path, ground_truth, args.iou_type)
        if path not in checkpoints
        else detect(
            checkpoints[path],
            name,
            ground_truth,
            images,
            args.images,
            args.iou_type,
        )
        for path, name in zip(paths, names, strict=True)
    ]
    out = Path(args.out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as beside:
            folder = Path(beside, 'shown')
            folder.mkdir()
            write_pages(
                args,
                names,
                ground_truth,
                statistics,
                several,
                is_rare,
                is_wanted,
                images,
                folder,
            )
            os.replace(folder, out)
    except OSError as error:
        raise LongTailError(
            f'{out}: cannot be written ({error.strerror})'
        ) from None
    print(f'{len(images)} pictures: {(out / "index.html").resolve()}')


if __name__ == '__main__':
    run(main)
