r"""Write a config for a COCO or LVIS format data set of your own.

    python tools/make_config.py data/mine --train train.json --val val.json \
        --method eql
    python tools/make_config.py data/mine --train train.json --val val.json \
        --method bags --base-config mine_softmax.py

Class names, the number of classes, EQL's lambda and BAGS's bins come from the
annotation files. With --base-config the written config is a second stage: it
starts from a detector that was trained with that config, and trains only its
classifier.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdet_longtail.apis.config_writer import (
    NAMES,
    check_model,
    check_roi_head,
    classifier_pattern,
    code,
    comment,
    spell_loss,
    spell_roi_head,
    spell_train_only,
    tidy,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import read_json

DEFAULT_BASE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('data_root', help='folder of the data set')
    parser.add_argument(
        '--train', required=True, help='annotation file, inside data_root'
    )
    parser.add_argument(
        '--val', required=True, help='annotation file, inside data_root'
    )
    parser.add_argument(
        '--method',
        required=True,
        choices=[*NAMES],
    )
    bases = parser.add_mutually_exclusive_group()
    bases.add_argument(
        '--base',
        nargs='+',
        default=[DEFAULT_BASE],
        help='config of a detector with a RoI head, or several files that '
        'make one up: paths or mmdet:: names (default: %(default)s)',
    )
    bases.add_argument(
        '--base-config',
        help='config of the first stage on the same data; the written one '
        'trains only the classifier on top of it',
    )
    parser.add_argument(
        '--image-prefix',
        nargs='+',
        metavar='FOLDER',
        help='where the images are, inside data_root; two if training and '
        'validation images are apart (default: found by looking)',
    )
    parser.add_argument(
        '--scale',
        nargs=2,
        type=int,
        metavar=('WIDTH', 'HEIGHT'),
        help="size of images in place of the base's",
    )
    parser.add_argument(
        '--out', help='file to write (default: <data_root name>_<method>.py)'
    )
    return parser.parse_args()


# -- the data --------------------------------------------------------------


class Split:
    """One annotation file of the data set and its images.

    Args:
        data_root (Path): Folder of the data set.
        ann_file (str): Inside it.
        image_prefix (str, optional): Folder of images, found if None.

    Raises:
        LongTailError: If the file is bad, or its images are not there.
    """

    def __init__(
        self, data_root: Path, ann_file: str, image_prefix: str | None
    ) -> None:
        path = data_root / ann_file
        content = read_json(path)
        annotations = parse_annotations(content, str(path))
        self.path = path
        self.ann_file = ann_file
        self.statistics = ClassStatistics.from_annotations(annotations)
        self.has_masks = any(
            annotation.get('segmentation')
            for annotation in content['annotations']
        )
        images = content['images']
        self.image_prefix = find_images(
            data_root, [images[0], images[-1]], image_prefix, path
        )


def find_images(
    data_root: Path,
    images: list[dict[str, Any]],
    image_prefix: str | None,
    source: Path,
) -> str:
    """Find the folder that holds images.

    Args:
        data_root (Path): Where to look, two levels deep.
        images (list[dict]): Some entries of the annotation file.
        image_prefix (str | None): The folder, if it is known.
        source (Path): The annotation file, for messages.

    Raises:
        LongTailError: If no folder has the images, or several have.
    """
    names = [
        image.get('file_name')
        or image.get('coco_url', '').replace(
            'http://images.cocodataset.org/', ''
        )
        for image in images
    ]
    if image_prefix is not None:
        folders = [data_root / image_prefix]
    else:
        below = [*sorted(data_root.glob('*')), *sorted(data_root.glob('*/*'))]
        folders = [data_root, *(path for path in below if path.is_dir())]
    hits = [
        folder
        for folder in folders
        if all((folder / name).is_file() for name in names)
    ]
    if not hits:
        raise LongTailError(
            f'{source}: image {names[0]} is not in {folders[0]}; say where '
            'the images are with --image-prefix'
        )
    if len(hits) > 1:
        raise LongTailError(
            f'{source}: image {names[0]} is in {hits[0]} and in {hits[1]}; '
            'say which one with --image-prefix'
        )
    prefix = os.path.relpath(hits[0], data_root)
    return '' if prefix == '.' else f'{prefix}/'


def check_same_classes(train: Split, val: Split) -> None:
    """Compare the categories of the two files.

    Raises:
        LongTailError: Naming the first class that differs.
    """
    names = [split.statistics.class_names for split in (train, val)]
    for label, (ours, theirs) in enumerate(zip(*names, strict=False)):
        if ours != theirs:
            raise LongTailError(
                f'{val.path}: category number {label + 1} is {theirs!r}, but '
                f'{ours!r} in {train.path}; both files need the same '
                'categories in the same order'
            )
    if len(names[0]) != len(names[1]):
        raise LongTailError(
            f'{val.path}: {len(names[1])} categories, but {len(names[0])} in '
            f'{train.path}; both files need the same categories in the same '
            'order'
        )


# -- the base --------------------------------------------------------------


def read_base(bases: list[str]) -> Config:
    """Read the configs that the written one inherits from.

    Raises:
        LongTailError: If they are not a trainable detector with a RoI head.
    """
    paths = [base if '::' in base else os.path.abspath(base) for base in bases]
    for base in bases:
        if '::' not in base and not os.path.isfile(base):
            raise LongTailError(f'{base}: no such config; check the path')
    try:
        config = Config.fromstring(f'_base_ = {paths!r}', '.py')
    except Exception as error:
        raise LongTailError(
            f'{" ".join(bases)}: not a config that can be read '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        if key not in config:
            raise LongTailError(
                f'{" ".join(bases)}: no {key}; add a base that has it, such '
                'as mmdet::_base_/datasets/coco_detection.py'
            )
    check_roi_head(config, ' '.join(bases))
    if 'semantic_head' in config.model.roi_head:
        raise LongTailError(
            f'{" ".join(bases)}: its semantic_head needs maps of pixels that '
            'COCO and LVIS files do not have; take '
            'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py'
        )
    return config


def leaf(dataset: ConfigDict) -> tuple[str, ConfigDict]:
    """Find the dataset inside wrappers, and the key that leads to it."""
    key = 'dataset'
    while 'dataset' in dataset:
        dataset = dataset.dataset
        key += '.dataset'
    return key, dataset


def check_base_config(config: Config, train: Split) -> None:
    """Check that the first stage learns from the same file.

    Raises:
        LongTailError: If it does not.
    """
    _, dataset = leaf(config.train_dataloader.dataset)
    path = os.path.join(
        dataset.get('data_root') or '', dataset.get('ann_file', '')
    )
    if os.path.abspath(path) != os.path.abspath(train.path):
        raise LongTailError(
            f'--base-config: it trains on {path}, not on {train.path}; both '
            'stages need the same data'
        )


# -- the text --------------------------------------------------------------


def spell_loader(
    loader: str, config: Config, split: Split, scale: list[int] | None
) -> str:
    """Spell a data loader: the base's, with another dataset.

    Raises:
        LongTailError: If there is no image size to replace.
    """
    key, dataset = leaf(config[loader].dataset)
    pipeline = f'_base_.{loader}.{key}.pipeline'
    if scale:
        if 'Resize' not in [step.type for step in dataset.pipeline]:
            raise LongTailError(
                f"--scale: no Resize in the base's {loader}; leave --scale "
                'out, or take another base'
            )
        pipeline = (
            f"[dict(step, scale={tuple(scale)}) if step['type'] == 'Resize' "
            f'else step for step in {pipeline}]'
        )
    kept = {}
    if dataset.get('test_mode'):
        kept['test_mode'] = 'True'
    elif dataset.get('filter_cfg'):
        filters = {k: repr(v) for k, v in dataset.filter_cfg.items()}
        kept['filter_cfg'] = code(**filters)
    new = code(
        _delete_='True',
        type="'AnnotationFileDataset'",
        data_root='data_root',
        ann_file=repr(split.ann_file),
        data_prefix=f'dict(img={split.image_prefix!r})',
        **kept,
        pipeline=pipeline,
    )
    return f'{loader} = dict(dataset={new})'


def spell_evaluator(config: Config, val: Split) -> str:
    """Spell the evaluator."""
    return 'val_evaluator = ' + code(
        _delete_='True',
        type="'FrequencyGroupMetric'",
        ann_file=f'data_root + {val.ann_file!r}',
        metric=repr(['bbox', 'segm'] if has_masks(config) else 'bbox'),
    )


def has_masks(config: Config) -> bool:
    """Tell if a detector learns masks."""
    return 'mask_head' in config.model.roi_head


def spell_stage(
    args: argparse.Namespace, config: Config, base: str, loss: dict[str, str]
) -> list[str]:
    """Spell a second stage that trains only the classifier."""
    last = (
        f'epoch_{config.train_cfg.max_epochs}.pth'
        if 'max_epochs' in config.train_cfg
        else f'iter_{config.train_cfg.max_iters}.pth'
    )
    return [
        f'# A second stage: {classifier_pattern(config)} learns, the rest '
        'stays as it is.',
        f'base_config = {base!r}',
        f"load_from = 'work_dirs/{Path(args.base_config).stem}/{last}'",
        f'default_hooks = dict(train_only={spell_train_only(config)})',
    ]


def spell_config(
    args: argparse.Namespace,
    config: Config,
    out: Path,
    train: Split,
    val: Split,
) -> str:
    """Spell the whole config."""
    statistics = train.statistics
    loss, reason = spell_loss(args.method, statistics)
    bases = [
        base if '::' in base else os.path.relpath(base, out.parent)
        for base in ([args.base_config] if args.base_config else args.base)
    ]
    base = bases[0] if len(bases) == 1 else bases
    roi_head = spell_roi_head(config.model.roi_head, loss)
    lines = [
        comment(
            f'{NAMES[args.method]}. Written by tools/make_config.py for '
            f'{train.path} ({statistics.num_classes} classes, '
            f'{statistics.num_images} images).'
        ),
        f'#   python tools/train.py {out}',
        f'_base_ = {base!r}',
        '',
    ]
    if args.base_config:
        lines += spell_stage(args, config, bases[0], loss)
        model = code(roi_head=roi_head)
    else:
        lines += [
            "custom_imports = dict(imports=['mmdet_longtail'], "
            'allow_failed_imports=False)',
            'default_hooks = dict('
            "class_statistics=dict(type='ClassStatisticsHook'))",
        ]
        model = code(
            roi_head=roi_head,
            test_cfg='dict(rcnn=dict(score_thr=1e-4, max_per_img=300))',
        )
    lines += ['', f'num_classes = {statistics.num_classes}']
    lines += [comment(reason)] if reason else []
    lines += [f'model = {model}']
    if not args.base_config:
        lines += [
            '',
            f'data_root = {os.path.join(args.data_root, "")!r}',
            spell_loader('train_dataloader', config, train, args.scale),
            spell_loader('val_dataloader', config, val, args.scale),
            'test_dataloader = val_dataloader',
            spell_evaluator(config, val),
            'test_evaluator = val_evaluator',
        ]
    return tidy(lines)


def main() -> None:
    """Write the config."""
    args = parse_args()
    data_root = Path(args.data_root)
    out = Path(args.out or f'{data_root.resolve().name}_{args.method}.py')
    if out.exists():
        raise LongTailError(
            f'{out}: exists already; remove it, or give another --out'
        )
    prefixes = args.image_prefix or [None]
    train = Split(data_root, args.train, prefixes[0])
    val = Split(data_root, args.val, prefixes[-1])
    check_same_classes(train, val)
    config = read_base([args.base_config] if args.base_config else args.base)
    if args.base_config:
        check_base_config(config, train)
    if has_masks(config) and not (train.has_masks and val.has_masks):
        raise LongTailError(
            f'{(val if train.has_masks else train).path}: no segmentation, '
            'but the base learns masks; take a base without mask_head, such '
            f'as {DEFAULT_BASE}'
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    # Configs are found beside each other, and are known by their ending.
    unfinished = out.with_name(f'_{os.getpid()}_{out.name}')
    try:
        unfinished.write_text(spell_config(args, config, out, train, val))
        check_model(unfinished)
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)
    print(f'{out} is written; train with: python tools/train.py {out}')


if __name__ == '__main__':
    run(main)
