"""Compare detectors on one validation set: a report, and annotated images.

Detectors are COCO result files, or checkpoints and work directories of
trainings. Result files need neither torch nor mmdet.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.apis.evaluation import ValidationSet, name_detectors
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    EvaluationSpec,
    GroundTruth,
    bootstrap_means,
    differences,
    evaluate,
    match_detections,
)
from mmdet_longtail.structures.annotations import image_file_name
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.console import progress_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.visualization.detections import (
    choose_drawn,
    choose_images,
    describe,
    draw,
    name_classes,
    restrict_to_classes,
)
from mmdet_longtail.visualization.figures import load_image, render_page
from mmdet_longtail.visualization.report import Detector, Report

if TYPE_CHECKING:
    from mmdet_longtail.apis.detect import TrainedModel

NUM_DRAWS = 100


class ComparedDetectors:
    """Detectors and the validation set that they share.

    Args:
        paths (Sequence[str]): Result files, checkpoints, or work directories.
        names (Sequence[str], optional): See `name_detectors`.
        ann_file (str, optional): Annotations of the validation set. None
            takes the validation set of the first checkpoint, and the options
            of its evaluator.
        statistics (ClassStatistics, optional): Counts of the training set.
            None takes those of the first checkpoint, if there is one.
        image_folder (str, optional): The folder where file names start.
        iou_type (str): 'bbox' or 'segm'.
        cfg_options (dict, optional): Overrides of the checkpoints' configs.

    Raises:
        LongTailError: If a file is missing or broken, or the files are not of
            the same classes.
    """

    def __init__(
        self,
        paths: Sequence[str],
        names: Sequence[str] | None = None,
        ann_file: str | None = None,
        statistics: ClassStatistics | None = None,
        image_folder: str | None = None,
        iou_type: str = 'bbox',
        cfg_options: dict[str, Any] | None = None,
    ) -> None:
        self.names = name_detectors(paths, names)
        self.paths = paths
        self.models: dict[str, TrainedModel] = {}
        for path in paths:
            if not path.endswith('.json'):
                from mmdet_longtail.apis.detect import TrainedModel

                self.models[path] = TrainedModel(path, cfg_options)
        options: dict[str, Any] = {}
        classes = None
        if self.models:
            first = next(iter(self.models.values()))
            if ann_file is None:
                options = first.validation_set()
            if statistics is None:
                statistics = first.checkpoint.require_class_statistics()
                classes = statistics.class_names
        ann_file = ann_file or options.get('ann_file')
        if ann_file is None:
            raise LongTailError(
                '--ann: result files need the annotations of their '
                'validation set'
            )
        self.image_folder = image_folder or options.get('image_folder')
        if self.image_folder and not os.path.isdir(self.image_folder):
            raise LongTailError(
                f'{self.image_folder}: no such folder; --images is where the '
                'file names in the annotations start'
            )
        rules = options.get('annotation_format')
        truth = GroundTruth.load(ann_file, (iou_type,), rules)
        truth = truth.with_classes(classes)
        groups = []
        if statistics is not None:
            check_counted_classes(truth, statistics)
            groups = statistics.frequency_groups()
            if options.get('bin_edges'):
                bin_by = options.get('bin_by', 'instance_count')
                groups += statistics.bin_groups(options['bin_edges'], bin_by)
        limit = options.get('max_detections')
        self.validation = ValidationSet(
            truth, iou_type, statistics, groups, limit
        )

    def make_specs(
        self, images: Sequence[int] | None = None
    ) -> list[EvaluationSpec]:
        """Load the detections of result files, and run the checkpoints.

        Args:
            images (Sequence[int], optional): Positions of the images to run
                checkpoints on; None is all.
        """
        truth = self.validation.ground_truth
        specs = []
        for name, path in zip(self.names, self.paths):
            if path not in self.models:
                specs.append(self.validation.make_spec(path))
                continue
            if self.image_folder is None:
                raise LongTailError(
                    f'{path}: a checkpoint needs images; give --images FOLDER'
                )
            detections = self.models[path].detect(
                name,
                truth,
                range(len(truth.images)) if images is None else images,
                self.image_folder,
                self.validation.iou_type,
            )
            limit = self.validation.max_detections
            specs.append(EvaluationSpec(truth, detections, limit))
        return specs


def write_report(out: str | Path, detectors: ComparedDetectors) -> None:
    """Evaluate detectors and write an HTML page that compares them.

    Args:
        out (str | Path): The page.
        detectors (ComparedDetectors): The first detector is the reference.

    Raises:
        LongTailError: If a file is missing or broken.
    """
    validation = detectors.validation
    evaluations = [
        evaluate(spec, validation.groups) for spec in detectors.make_specs()
    ]
    shown = []
    for name, path, evaluation in zip(
        detectors.names, detectors.paths, evaluations
    ):
        model = detectors.models.get(path)
        details = {'source': path} if model is None else model.details()
        shown.append(Detector(name, evaluation, **details))
    means = bootstrap_means(evaluations, NUM_DRAWS, console=progress_console())
    report = Report(
        shown,
        differences(evaluations, means),
        NUM_DRAWS,
        validation.statistics,
        detectors.image_folder,
    )
    write_atomic(out, report.render())


def show_detections(
    out: str | Path,
    detectors: ComparedDetectors,
    num_images: int = 20,
    classes: Sequence[str] | None = None,
    score_thr: float | None = None,
    iou_thr: float = 0.5,
) -> int:
    """Draw the detectors side by side, one figure per image.

    Args:
        out (str | Path): Folder to create, with index.html.
        detectors (ComparedDetectors): The detectors; needs an image folder.
        num_images (int): The largest number of images; see `choose_images`.
        classes (Sequence[str], optional): Show only these classes.
        score_thr (float, optional): See `choose_drawn`.
        iou_thr (float): Smallest overlap of a true positive.

    Returns:
        int: Number of images.

    Raises:
        LongTailError: If an argument is wrong, a file is missing or broken,
            or the folder exists.
    """
    validation, folder = detectors.validation, detectors.image_folder
    truth, statistics = validation.ground_truth, validation.statistics
    out = Path(out)
    if num_images < 1:
        raise LongTailError(
            f'--num-images: expected at least 1, found {num_images}'
        )
    if not 0 < iou_thr <= 1:
        raise LongTailError(
            f'--iou-thr: expected more than 0 and at most 1, found {iou_thr:g}'
        )
    if folder is None:
        raise LongTailError('--images: expected the folder of the images')
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise LongTailError(
            f'{out}: is there already; remove it, or give another --out'
        )
    is_wanted = find_classes(truth, classes)
    is_rare = np.zeros(truth.num_classes, bool)
    image_count = np.zeros(truth.num_classes, np.int64)
    if statistics is not None:
        is_rare = validation.groups[0].members
        image_count = statistics.image_count
    images = choose_images(truth, image_count, is_rare, is_wanted, num_images)
    if not images:
        raise LongTailError(
            f'{truth.source}: has no object of the classes to show'
        )
    for image in images:  # A detector would run long before this fails.
        load_image(folder, truth.images[image])
    several = [
        restrict_to_classes(
            match_detections(spec, [iou_thr], images), is_wanted
        )
        for spec in detectors.make_specs(images)
    ]
    drawn = [choose_drawn(matches, score_thr) for matches in several]
    figures: list[tuple] = []
    console = Console(file=sys.stdout)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as unfinished:
            shown = Path(unfinished, 'shown')
            shown.mkdir()
            for image in track(images, 'Drawing', console=console):
                title = image_file_name(truth.images[image])
                panels = [
                    describe(name, matches, chosen, image, is_rare)
                    for name, matches, chosen in zip(
                        detectors.names, several, drawn
                    )
                ]
                number = f'{len(figures) + 1:0{len(str(len(images)))}}'
                stem = re.sub(r'[^\w.-]+', '_', Path(title).stem)
                file = f'{number}_{stem}.png'
                picture = load_image(folder, truth.images[image])
                draw(picture, title, panels).savefig(shown / file)
                names = name_classes(truth, image, is_rare, statistics)
                figures.append((file, title, *names))
            page = render_page(
                'detections.html',
                names=detectors.names,
                validation=validation,
                figures=figures,
                iou_thr=iou_thr,
                score_thr=score_thr,
            )
            write_atomic(shown / 'index.html', page)
            os.replace(shown, out)
    except OSError as error:
        raise LongTailError(
            f'{out}: cannot be written ({error.strerror})'
        ) from None
    return len(images)


def find_classes(
    ground_truth: GroundTruth, names: Sequence[str] | None
) -> np.ndarray:
    """Mark classes by name (C,) bool; None marks all.

    Raises:
        LongTailError: Naming the first unknown class.
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
