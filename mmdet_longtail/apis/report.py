"""Compare detectors on one validation set: a report, and annotated images.

Detectors are COCO result files, or checkpoints and work directories of
trainings. Result files need neither torch nor mmdet.
"""

import difflib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mmdet_longtail.apis.evaluation import ValidationSet, name_detectors
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import (
    EvaluationSpec,
    GroundTruth,
    evaluate,
    match_detections,
)
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.console import show_progress
from mmdet_longtail.utils.fileio import check_writable, write_atomic
from mmdet_longtail.visualization.detections import (
    ImageSet,
    choose_drawn,
    draw,
    restrict_to_classes,
)
from mmdet_longtail.visualization.figures import figure_bytes, render_page
from mmdet_longtail.visualization.report import Detector, Report


class ComparedDetectors:
    """Detectors and the validation set that they share.

    Args:
        paths (Sequence[str]): Result files, checkpoints, or work directories.
        names (Sequence[str], optional): See `name_detectors`.
        ann_file (str, optional): Annotations of the validation set. None
            takes the validation set of the first checkpoint, and the options
            of its evaluator.
        statistics (ClassStatistics, optional): Counts of the training set.
            None takes those of the first checkpoint that has any.
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
        self.paths, self.names = paths, name_detectors(paths, names)
        self.models: dict[str, Any] = {}  # TrainedModel, by path
        for path in paths:
            if not path.endswith('.json'):
                from mmdet_longtail.apis.detect import TrainedModel

                self.models[path] = TrainedModel(path, cfg_options)
        options: dict[str, Any] = {'ann_file': ann_file}
        classes = None
        models = [*self.models.values()]
        if models:
            classes = models[0].checkpoint.classes
            if ann_file is None:
                options = models[0].validation_set()
        # mmdet's own trainings record none.
        recorded = (model.checkpoint.class_statistics for model in models)
        statistics = statistics or next(filter(None, recorded), None)
        check(
            options['ann_file'],
            '--ann: result files need the annotations of their validation set',
        )
        folder = image_folder or options.get('image_folder')
        check(
            not folder or os.path.isdir(folder),
            f'{folder}: no such folder; the file names in the annotations are '
            'relative to --images',
        )
        rules = options.get('annotation_format')
        truth = GroundTruth.load(options['ann_file'], (iou_type,), rules)
        truth = truth.with_classes(classes)
        groups: list[ClassGroup] = []
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
        self.images = ImageSet(truth, statistics, folder or None)

    def make_specs(
        self, images: Sequence[int] | None = None
    ) -> list[EvaluationSpec]:
        """Load the detections of result files, and run the checkpoints.

        Args:
            images (Sequence[int], optional): Positions of the images to run
                checkpoints on; None is all.
        """
        validation, specs = self.validation, []
        for name, path in zip(self.names, self.paths):
            if path not in self.models:
                specs.append(validation.make_spec(path))
                continue
            check(
                self.images.folder,
                f'{path}: a checkpoint needs images; give --images FOLDER',
            )
            detections = self.models[path].detect(
                name, self.images, images, validation.iou_type
            )
            truth, limit = validation.ground_truth, validation.max_detections
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
    shown = []
    for name, path, spec in zip(
        detectors.names, detectors.paths, detectors.make_specs()
    ):
        model = detectors.models.get(path)
        details: dict[str, Any] = {'source': path}
        if model is not None:
            details = model.details(detectors.images.truth.num_classes)
        evaluation = evaluate(spec, detectors.validation.groups)
        if spec.warning:
            print(f'{name}: {spec.warning}', file=sys.stderr)
        shown.append(Detector(name, evaluation, **details))
    write_atomic(out, Report(shown, detectors.images).render())


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
        out (str | Path): Folder for the figures and index.html.
        detectors (ComparedDetectors): The detectors; needs an image folder.
        num_images (int): The largest number of images; see `ImageSet.choose`.
        classes (Sequence[str], optional): Show only these classes.
        score_thr (float, optional): See `choose_drawn`.
        iou_thr (float): Smallest overlap of a true positive.

    Returns:
        int: Number of images.

    Raises:
        LongTailError: If an argument is wrong, a file is missing or broken,
            or the folder has content.
    """
    images, truth, out = detectors.images, detectors.images.truth, Path(out)
    check_numbers('', '[1, inf)', **{'--num-images': num_images})
    check_numbers('', '(0, 1]', **{'--iou-thr': iou_thr})
    if score_thr is not None:
        check_numbers('', '[0, 1]', **{'--score-thr': score_thr})
    check(images.folder, '--images: expected the folder of the images')
    check_new_folder(out)
    is_wanted = _find_classes(truth, classes)
    positions = images.choose(is_wanted, num_images)
    check(positions, f'{truth.source}: has no object of the classes to show')
    for image in positions:  # A detector would run long before this fails.
        images.load(image)
    results = []
    for name, spec in zip(detectors.names, detectors.make_specs(positions)):
        matches = match_detections(spec, [iou_thr], positions)
        matches = restrict_to_classes(matches, is_wanted)
        results.append((name, matches, choose_drawn(matches, score_thr)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as temporary:
        shown = Path(temporary, 'shown')  # with the permissions of the user
        shown.mkdir()
        figures: dict[int, str] = {}
        for image in show_progress(positions, 'Drawing'):
            title = images.file_name(image)
            panels = [images.panel(image, *result) for result in results]
            number = f'{len(figures) + 1:0{len(str(len(positions)))}}'
            stem = re.sub(r'[^\w.-]+', '_', Path(title).stem)
            name = figures[image] = f'{number}_{stem}.png'
            figure = draw(images.load(image), title, panels)
            write_atomic(shown / name, figure_bytes(figure, name))
        page = render_page(
            'detections.html',
            names=detectors.names,
            images=images,
            iou_type=detectors.validation.iou_type,
            figures=figures,
            iou_thr=iou_thr,
            score_thr=score_thr,
        )
        write_atomic(shown / 'index.html', page)
        shown.replace(out)
    return len(positions)


def check_new_folder(out: str | Path) -> None:
    """Check that a folder is empty or does not exist, and can be written.

    Raises:
        LongTailError: If it has content, is a file, or cannot be written.
    """
    out = Path(out)
    check(
        not out.exists() or (out.is_dir() and not any(out.iterdir())),
        f'{out}: exists already; remove it, or give another --out',
    )
    check_writable(out / 'index.html')


def _find_classes(
    truth: GroundTruth, names: Sequence[str] | None
) -> np.ndarray:
    """Mark classes by name (C,) bool; None marks all."""
    known = truth.class_names
    for name in names or ():
        close = difflib.get_close_matches(name, known, 1)
        hint = f'did you mean {close[0]!r}?' if close else 'check the name'
        check(
            name in known,
            f'--classes: {truth.source} has no class {name!r}; {hint}',
        )
    return np.isin(known, known if names is None else names)
