"""Detections in any images, as pictures and one JSON file."""

import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.utils.misc import IMG_EXTENSIONS
from mmdet.visualization import DetLocalVisualizer
from mmengine.fileio import list_dir_or_file

from mmdet_longtail.apis.detect import TrainedModel
from mmdet_longtail.apis.report import check_new_folder
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import encode_masks
from mmdet_longtail.evaluation.functional.score_thresholds import (
    ScoreThresholds,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.fileio import write_atomic


def predict(
    checkpoint: str | Path,
    images: Iterable[str],
    out: str | Path,
    *,
    score_thr: float = 0.3,
    thresholds: str | Path | None = None,
    pictures: bool = True,
    cfg_options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Detect objects in images, and write pictures and predictions.json.

    Args:
        checkpoint (str | Path): A checkpoint, or the work directory of a
            training. It carries its config and its classes.
        images (Iterable[str]): Files, folders, or patterns such as
            'photos/*.jpg'. Folders are searched with their subfolders.
        out (str | Path): Folder to write; it has no content yet.
        score_thr (float): Smallest score of a detection, 0..1.
        thresholds (str | Path, optional): Smallest score per class, a file of
            ``longtail score-thresholds``, in the place of score_thr.
        pictures (bool): Whether to draw the detections into the images.
        cfg_options (dict, optional): Overrides of the checkpoint's config.

    Returns:
        dict[str, Any]: The content of predictions.json: images, categories,
        and annotations in the format of COCO results.

    Raises:
        LongTailError: If the checkpoint carries no config or classes, there
            is no such image, or an argument is wrong.
    """
    check_numbers('', '[0, 1]', **{'--score-thr': score_thr})
    check_new_folder(out)
    paths = find_images(images)
    folder = os.path.commonpath([path.parent for path in paths])
    model = TrainedModel(checkpoint, cfg_options)
    classes = model.checkpoint.classes or ()
    check(
        classes,
        f'{model.checkpoint.source}: carries no class names '
        '(meta.dataset_meta); take a checkpoint that training wrote',
    )
    lowest = np.full(len(classes), score_thr)
    if thresholds is not None:
        chosen = ScoreThresholds.load(thresholds)
        lowest = chosen.of_classes(classes, str(thresholds))
    content: dict[str, Any] = {
        'info': {'image_folder': folder, 'source': str(checkpoint)},
        'images': [],
        'categories': [
            {'id': label + 1, 'name': name}
            for label, name in enumerate(classes)
        ],
        'annotations': [],
    }
    visualizer = DetLocalVisualizer(save_dir=str(out))
    visualizer.dataset_meta = model.checkpoint.meta['dataset_meta']
    entries = [
        dict(img_path=str(path), img_id=id) for id, path in enumerate(paths, 1)
    ]
    for sample in model.samples(entries, f'Detecting in {len(paths)} images'):
        found = sample.pred_instances.cpu()
        is_shown = found.scores >= torch.as_tensor(lowest)[found.labels]
        sample.pred_instances = found[is_shown]
        path = paths[sample.img_id - 1]
        name = path.relative_to(folder).as_posix()
        height, width = sample.ori_shape[:2]
        content['images'].append(
            {
                'id': sample.img_id,
                'file_name': name,
                'width': width,
                'height': height,
            }
        )
        content['annotations'] += _results(
            sample, len(content['annotations']) + 1
        )
        if pictures:
            visualizer.add_datasample(
                name,
                mmcv.imread(path, channel_order='rgb'),
                sample,
                draw_gt=False,
                out_file=str(Path(out, 'pictures', name)),
                pred_score_thr=-1.0,
            )
    write_atomic(Path(out, 'predictions.json'), json.dumps(content) + '\n')
    return content


def find_images(sources: Iterable[str]) -> list[Path]:
    """Find images by files, folders and patterns, each once, in order.

    Raises:
        LongTailError: If a source has no image.
    """
    found: dict[Path, None] = {}
    for source in sources:
        if os.path.isdir(source):
            names = list_dir_or_file(
                source, list_dir=False, suffix=IMG_EXTENSIONS, recursive=True
            )
            paths = [os.path.join(source, name) for name in sorted(names)]
        elif os.path.isfile(source):
            paths = [source]
        else:
            matches = sorted(glob.glob(source, recursive=True))
            paths = [path for path in matches if os.path.isfile(path)]
        check(
            paths,
            f'{source}: no such image, expected a file, a folder with images '
            f'({", ".join(IMG_EXTENSIONS)}) or a pattern in quotes, such as '
            "'photos/*.jpg'",
        )
        # Without '..', which would lead out of the folder of the pictures.
        found |= dict.fromkeys(Path(os.path.abspath(p)) for p in paths)
    return list(found)


def _results(sample: DetDataSample, first_id: int) -> list[dict[str, Any]]:
    """Convert the detections of an image to COCO's result format."""
    found = sample.pred_instances.numpy()
    masks: Sequence[Mapping[str, Any]] = []
    if 'masks' in found:
        masks = encode_masks(found.masks)
    results = []
    rows = zip(found.bboxes.tolist(), found.scores.tolist(), found.labels)
    for row, ((x1, y1, x2, y2), score, label) in enumerate(rows):
        result = {
            'id': first_id + row,
            'image_id': sample.img_id,
            'category_id': int(label) + 1,
            'bbox': [x1, y1, x2 - x1, y2 - y1],
            'area': (x2 - x1) * (y2 - y1),
            'iscrowd': 0,
            'score': score,
        }
        if masks:
            counts = masks[row]['counts']
            if isinstance(counts, bytes):  # JSON has text only.
                counts = counts.decode()
            result['segmentation'] = dict(masks[row], counts=counts)
        results.append(result)
    return results
