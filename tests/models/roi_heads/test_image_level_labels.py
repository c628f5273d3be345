"""Classes that an image was checked for keep their weight in the loss."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed
from mmengine.structures import InstanceData
from naive import softplus
from tiny import make_data, write_config

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.roi_heads import find_verified_classes
from mmdet_longtail.structures.class_statistics import ClassStatistics

LVIS_VAL_100 = (
    Path(__file__).parents[4] / 'shared' / 'data' / 'lvis'
) / 'lvis_val_100.json'
CLASS_NAMES = ('disc', 'square', 'ring', 'cross', 'star', 'wave')
NEG, NOT_EXHAUSTIVE = 'neg_category_ids', 'not_exhaustive_category_ids'
THRESHOLD = 0.6  # tail: the last three classes of the six


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Six images; class c is in 6 - c of them, as boxes of 20 pixels.

    Image 2 lacks the last class and says so, image 5 has the first class
    only, lacks class 3 and says so. Nothing is said of the others.
    """
    folder = make_data(
        tmp_path_factory.mktemp('data') / 'mini', 6, 2, CLASS_NAMES
    )
    path = folder / 'train.json'
    make_federated(path, {2: [6], 5: [4]})
    return folder


def make_federated(path, absent):
    content = json.loads(path.read_text())
    for image in content['images']:
        image[NEG] = absent.get(image['id'], [])
        image[NOT_EXHAUSTIVE] = []
    path.write_text(json.dumps(content))


def label_of(content):
    return {c['id']: label for label, c in enumerate(content['categories'])}


def present_in(content, img_id):
    """Labels of the classes annotated in the file's image, by loops."""
    present = set()
    for annotation in content['annotations']:
        if annotation['image_id'] == img_id:
            present.add(label_of(content)[annotation['category_id']])
    for image in content['images']:
        if image['id'] == img_id:
            for category_id in image[NOT_EXHAUSTIVE]:
                present.add(label_of(content)[category_id])
    return present


def absent_in(content, img_id):
    absent = set()
    for image in content['images']:
        if image['id'] == img_id:
            for category_id in image[NEG]:
                absent.add(label_of(content)[category_id])
    return absent


def build_dataset(type, ann_file, pipeline=(), **kwargs):
    return DATASETS.build(
        dict(
            type=type,
            ann_file=str(ann_file),
            data_prefix=dict(img=str(Path(ann_file).parent / 'images')),
            pipeline=list(pipeline),
            **kwargs,
        )
    )


# -- what a dataset says of an image ------------------------------------------


@pytest.mark.skipif(not LVIS_VAL_100.exists(), reason='needs LVIS')
@pytest.mark.parametrize(
    'type',
    [
        'FederatedLVISV05Dataset',
        'FederatedLVISV1Dataset',
        'FederatedAnnotationFileDataset',
    ],
)
def test_labels_are_those_of_the_file(type):
    content = json.loads(LVIS_VAL_100.read_text())
    dataset = build_dataset(type, LVIS_VAL_100)
    assert len(dataset) == 100
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        present = present_in(content, info['img_id'])
        absent = absent_in(content, info['img_id'])
        assert info['present_labels'] == sorted(present)
        assert info['absent_labels'] == sorted(absent)


def edit(folder, change, to):
    content = json.loads((folder / 'train.json').read_text())
    change(content)
    path = to / 'train.json'
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    'change',
    [
        dict(iscrowd=1),
        dict(ignore=1),
        dict(bbox=[8, 8, 0, 0]),
        dict(bbox=[8, 8, 0.5, 20]),
        dict(bbox=[-30, -30, 20, 20]),
        dict(area=0),
    ],
    ids=str,
)
def test_a_class_is_present_whatever_its_boxes(folder, tmp_path, change):
    def apply(content):
        for annotation in content['annotations']:
            if annotation['category_id'] == 6:
                annotation.update(change)

    path = edit(folder, apply, tmp_path)
    info = build_dataset('FederatedAnnotationFileDataset', path)[0]
    assert info['present_labels'] == [0, 1, 2, 3, 4, 5]
    boxes = [
        i['bbox_label'] for i in info['instances'] if not i['ignore_flag']
    ]
    assert 5 not in boxes


def test_a_class_not_annotated_exhaustively_is_present(folder, tmp_path):
    def apply(content):
        content['images'][5][NOT_EXHAUSTIVE] = [5]

    path = edit(folder, apply, tmp_path)
    info = build_dataset('FederatedAnnotationFileDataset', path)[5]
    assert info['present_labels'] == [0, 4]


def test_labels_of_some_classes_only(folder):
    dataset = build_dataset(
        'FederatedAnnotationFileDataset',
        folder / 'train.json',
        metainfo=dict(classes=('ring', 'wave')),
    )
    info = dataset.get_data_info(1)
    assert (info['present_labels'], info['absent_labels']) == ([0], [1])


def test_a_file_without_labels_is_refused(folder):
    with pytest.raises(LongTailError) as error:
        build_dataset('FederatedAnnotationFileDataset', folder / 'val.json')
    assert_one_line(error, 'val.json', 'image 1', NEG)


def assert_one_line(error, *parts):
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message


# -- on the way through the pipeline ------------------------------------------

LOAD = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
]
LOAD_BOXES = [LOAD[0], dict(type='LoadAnnotations', with_bbox=True)]
PACK = dict(type='PackDetInputs')
PACK_LABELS = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_shape', 'present_labels', 'absent_labels'),
)


@pytest.mark.parametrize('pack', [PACK, PACK_LABELS], ids=['default', 'keys'])
def test_a_cropped_away_object_does_not_remove_its_class(folder, pack):
    crop = dict(
        type='RandomCrop', crop_size=(24, 24), allow_negative_crop=True
    )
    dataset = build_dataset(
        'FederatedAnnotationFileDataset',
        folder / 'train.json',
        [*LOAD, crop, pack],
    )
    cropped = 0
    for number in range(5):
        set_random_seed(number)
        sample = dataset[1]['data_samples']
        assert sample.present_labels == [0, 1, 2, 3, 4]
        assert sample.absent_labels == [5]
        cropped += set(sample.gt_instances.labels.tolist()) < {0, 1, 2, 3, 4}
    assert cropped


def test_labels_pass_through_the_repeating_wrappers(folder):
    dataset = dict(
        type='FederatedAnnotationFileDataset',
        ann_file=str(folder / 'train.json'),
        data_prefix=dict(img=str(folder / 'images')),
        pipeline=[*LOAD, PACK],
    )
    balanced = dict(
        type='ClassBalancedDataset', oversample_thr=0.9, dataset=dataset
    )
    joined = DATASETS.build(
        dict(type='ConcatDataset', datasets=[balanced, dataset])
    )
    assert len(joined) > 12
    for index in range(len(joined)):
        sample = joined[index]['data_samples']
        assert sample.present_labels == list(range(7 - sample.img_id))


MERGING = {
    'Mosaic': dict(type='Mosaic', img_scale=(64, 64), prob=1.0),
    'MixUp': dict(type='MixUp', img_scale=(64, 64), flip_ratio=0.0),
    'CopyPaste': dict(type='CopyPaste'),
}


def mixed(folder, transform, pack):
    dataset = dict(
        type='FederatedAnnotationFileDataset',
        ann_file=str(folder / 'train.json'),
        data_prefix=dict(img=str(folder / 'images')),
        # Mosaic and MixUp do not know masks; CopyPaste needs them.
        pipeline=LOAD if transform['type'] == 'CopyPaste' else LOAD_BOXES,
    )
    return DATASETS.build(
        dict(
            type='MultiImageMixDataset',
            dataset=dataset,
            pipeline=[transform, pack],
        )
    )


@pytest.mark.parametrize('name', MERGING)
def test_merged_images_have_no_labels(folder, name):
    set_random_seed(0)
    sample = mixed(folder, MERGING[name], PACK)[0]['data_samples']
    with pytest.raises(LongTailError) as error:
        find_verified_classes([sample], 6)
    assert_one_line(
        error,
        "image 1 has no 'present_labels'",
        'FederatedLVISV1Dataset',
        'PackDetInputs',
        'meta_keys',
    )


def refused(samples):
    """How many are refused for an object of a class that is not present.

    What is not refused has only objects that its present_labels know.
    """
    number = 0
    for sample in samples:
        labels = set(sample.gt_instances.labels.tolist())
        if labels <= set(sample.present_labels):
            find_verified_classes([sample], 6)
            continue
        number += 1
        with pytest.raises(LongTailError) as error:
            find_verified_classes([sample], 6)
        assert_one_line(error, f'image {sample.img_id}', 'Mosaic')
    return number


@pytest.mark.parametrize('name', MERGING)
def test_labels_of_the_first_of_merged_images_are_refused(folder, name):
    set_random_seed(0)
    dataset = mixed(folder, MERGING[name], PACK_LABELS)
    samples = [dataset[index]['data_samples'] for index in range(6)]
    assert refused(samples) >= 2


@pytest.mark.parametrize('type', ['CachedMosaic', 'CachedMixUp'])
def test_a_merging_transform_in_the_own_pipeline_is_refused(folder, type):
    set_random_seed(0)
    merge = dict(type=type, img_scale=(64, 64), prob=1.0)
    dataset = build_dataset(
        'FederatedAnnotationFileDataset',
        folder / 'train.json',
        [*LOAD_BOXES, merge, PACK],
    )
    samples = [dataset[index]['data_samples'] for index in range(6)]
    samples += [dataset[index]['data_samples'] for index in range(6)]
    assert refused(samples) >= 2


# -- what the loss does with it -----------------------------------------------


# Without the prior, under which a term of the sum is next to nothing.
LOSS_CLS = dict(
    type='EqualizationLoss',
    num_classes=6,
    frequency_threshold=THRESHOLD,
    prior_prob=None,
)
NUM_STAGES = {
    'StandardRoIHead': 1,
    'CascadeRoIHead': 2,
    'HybridTaskCascadeRoIHead': 2,
}


def make_config(tmp_path, folder, family='StandardRoIHead'):
    """The small detector, with what switches image-level labels on."""
    path = write_config(tmp_path / 'config.py', folder, 6)
    config = Config.fromfile(path)
    dataset = config.train_dataloader.dataset
    dataset.type = 'FederatedAnnotationFileDataset'
    dataset.pipeline[1].with_mask = True
    roi_head = config.model.roi_head
    roi_head.type = 'LongTail' + family
    bbox_head = roi_head.bbox_head
    bbox_head.type = 'LongTailShared2FCBBoxHead'
    bbox_head.loss_cls = LOSS_CLS
    if family == 'StandardRoIHead':
        return config
    bbox_head.reg_class_agnostic = True
    roi_head.num_stages = 2
    roi_head.stage_loss_weights = [1.0, 0.5]
    roi_head.bbox_head = [bbox_head, bbox_head]
    rcnn = config.model.train_cfg.rcnn
    config.model.train_cfg.rcnn = [
        rcnn | dict(mask_size=6),
        rcnn | dict(mask_size=6),
    ]
    if family == 'HybridTaskCascadeRoIHead':
        roi_head.mask_roi_extractor = roi_head.bbox_roi_extractor
        mask_head = dict(
            type='HTCMaskHead',
            num_convs=1,
            in_channels=16,
            conv_out_channels=16,
            num_classes=6,
        )
        roi_head.mask_head = [mask_head, mask_head]
    return config


def give_statistics(model, statistics):
    for module in model.modules():
        if isinstance(module, LongTailLoss):
            module.set_class_statistics(statistics)


def listen(roi_head):
    """Write down the RoIs and what each loss is called with, as they come."""
    rois, calls = [], []

    def extractor_hook(module, args):
        rois.append(args[1])

    def loss_hook(module, args, kwargs):
        calls.append((*args, kwargs['avg_factor']))

    extractors = roi_head.bbox_roi_extractor
    heads = roi_head.bbox_head
    if not isinstance(heads, torch.nn.ModuleList):
        extractors, heads = [extractors], [heads]
    for extractor, head in zip(extractors, heads, strict=True):
        extractor.register_forward_pre_hook(extractor_hook)
        head.loss_cls.register_forward_pre_hook(loss_hook, with_kwargs=True)
    return rois, calls


def naive_loss(content, is_tail, img_ids, rois, call, use_labels=True):
    """EQL of each RoI, a term at a time, its weight w from the file."""
    cls_score, labels, _, avg_factor = call
    verified = [
        present_in(content, img_id) | absent_in(content, img_id)
        for img_id in img_ids
    ]
    total = 0.0
    for roi, z, label in zip(
        rois.tolist(), cls_score.tolist(), labels.tolist(), strict=True
    ):
        for j in range(len(z)):
            if label == j:
                total += softplus(-z[j])
                continue
            is_foreground = label < len(z)
            is_verified = use_labels and j in verified[int(roi[0])]
            if not (is_foreground and is_tail[j] and not is_verified):
                total += softplus(z[j])
    return total / avg_factor


@pytest.mark.parametrize('family', NUM_STAGES)
def test_loss_is_that_of_a_loop_over_rois(family, folder, tmp_path):
    content = json.loads((folder / 'train.json').read_text())
    statistics = ClassStatistics.from_annotation_file(folder / 'train.json')
    is_tail = statistics.image_frequency < THRESHOLD
    assert is_tail.tolist() == [False] * 3 + [True] * 3

    config = make_config(tmp_path, folder, family)
    set_random_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    give_statistics(model, statistics)
    rois, calls = listen(model.roi_head)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    batch = pseudo_collate([dataset[1], dataset[4], dataset[2]])
    data = model.data_preprocessor(batch, training=True)
    losses = model(**data, mode='loss')

    num_stages = NUM_STAGES[family]
    assert len(rois) == len(calls) == num_stages
    for stage in range(num_stages):
        name = 'loss_cls' if num_stages == 1 else f's{stage}.loss_cls'
        measured = losses[name] / (1.0, 0.5)[stage]
        arguments = (content, is_tail, (2, 5, 3), rois[stage], calls[stage])
        assert set(rois[stage][:, 0].tolist()) == {0.0, 1.0, 2.0}
        assert measured.item() == pytest.approx(
            naive_loss(*arguments), rel=1e-5
        )
        without = naive_loss(*arguments, use_labels=False)
        assert measured.item() > without * 1.01


BBOX_HEAD = dict(
    type='LongTailShared2FCBBoxHead',
    in_channels=4,
    fc_out_channels=8,
    roi_feat_size=2,
    num_classes=6,
    reg_class_agnostic=True,
    loss_cls=LOSS_CLS,
)
ROI_HEAD = dict(
    type='LongTailStandardRoIHead',
    bbox_roi_extractor=dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=2, sampling_ratio=1),
        out_channels=4,
        featmap_strides=[16],
    ),
    train_cfg=ConfigDict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.5,
        ),
        sampler=dict(type='RandomSampler', num=8, pos_fraction=0.5),
        pos_weight=-1,
    ),
)


@pytest.mark.skipif(not LVIS_VAL_100.exists(), reason='needs LVIS')
def test_loss_is_that_of_a_loop_on_lvis():
    content = json.loads(LVIS_VAL_100.read_text())
    statistics = ClassStatistics.from_annotation_file(LVIS_VAL_100)
    dataset = build_dataset(
        'FederatedLVISV05Dataset',
        LVIS_VAL_100,
        [dict(type='LoadAnnotations', with_bbox=True), PACK],
    )
    set_random_seed(0)
    loss_cls = LOSS_CLS | dict(num_classes=1230, frequency_threshold=0.03)
    bbox_head = BBOX_HEAD | dict(num_classes=1230, loss_cls=loss_cls)
    roi_head = MODELS.build(ROI_HEAD | dict(bbox_head=bbox_head))
    give_statistics(roi_head, statistics)
    rois, calls = listen(roi_head)
    samples = [dataset[index]['data_samples'] for index in (3, 50, 8)]
    proposals = []
    for sample in samples:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.tensor
        sample.ignored_instances.bboxes = torch.zeros(0, 4)
        corner = 400 * torch.rand(30, 2)
        boxes = torch.cat([corner, corner + 20 + 60 * torch.rand(30, 2)], 1)
        proposals.append(InstanceData(bboxes=boxes))
    features = (torch.randn(3, 4, 40, 40),)
    losses = roi_head.loss(features, proposals, samples)

    is_tail = statistics.image_frequency < 0.03
    img_ids = [sample.img_id for sample in samples]
    arguments = (content, is_tail, img_ids, rois[0], calls[0])
    assert losses['loss_cls'].item() == pytest.approx(
        naive_loss(*arguments), rel=1e-5
    )
    without = naive_loss(*arguments, use_labels=False)
    assert losses['loss_cls'].item() > without * 1.001


def sample_of(img_id, present, absent, labels=()):
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0]]).repeat(len(labels), 1)
    labels = torch.tensor(labels, dtype=torch.int64)
    return DetDataSample(
        metainfo=dict(
            img_id=img_id,
            img_shape=(64, 64),
            present_labels=present,
            absent_labels=absent,
        ),
        gt_instances=InstanceData(bboxes=boxes, labels=labels),
    )


def small_roi_head(bbox_head=BBOX_HEAD):
    set_random_seed(0)
    roi_head = MODELS.build(ROI_HEAD | dict(bbox_head=bbox_head))
    statistics = ClassStatistics(
        CLASS_NAMES, np.arange(6, 0, -1), np.arange(6, 0, -1), 6, 6
    )
    give_statistics(roi_head, statistics)
    return roi_head


def loss_of(roi_head, samples, channels=4):
    set_random_seed(1)
    features = (torch.randn(len(samples), channels, 4, 4),)
    boxes = torch.tensor([[8.0, 8.0, 40.0, 40.0], [50.0, 50.0, 60.0, 60.0]])
    proposals = [InstanceData(bboxes=boxes.clone()) for _ in samples]
    losses = roi_head.loss(features, proposals, samples)
    return losses['loss_cls'].item()


def test_verified_classes_of_a_batch():
    samples = [
        sample_of(7, [0, 2], [5], [2, 0, 2]),
        sample_of(8, [], []),
        sample_of(9, [], [3]),
    ]
    assert find_verified_classes(samples, 6).int().tolist() == [
        [1, 0, 1, 0, 0, 1],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
    ]


def test_rows_of_an_image_see_its_own_classes_only():
    """Swapping the labels of two images changes the loss of both."""
    roi_head = small_roi_head()
    verified = sample_of(1, [0], [3, 4, 5], [0])
    unknown = sample_of(2, [0], [], [0])
    seen = []

    def hook(module, args, kwargs):
        seen.append(args[0].detach())

    roi_head.bbox_head.loss_cls.register_forward_pre_hook(
        hook, with_kwargs=True
    )
    both, first, second, none = (
        loss_of(roi_head, samples)
        for samples in (
            [verified, verified],
            [verified, unknown],
            [unknown, verified],
            [unknown, unknown],
        )
    )
    for scores in seen[1:]:
        torch.testing.assert_close(scores, seen[0])
    assert both > first > none and both > second > none
    assert both - none == pytest.approx(
        (first - none) + (second - none), abs=1e-5
    )


def test_labels_are_forgotten_after_an_error():
    roi_head = small_roi_head()
    samples = [sample_of(1, [0], [3, 4, 5], [0])]
    unknown = [sample_of(1, [0], [], [0])]
    expected = loss_of(roi_head, unknown)
    assert loss_of(roi_head, samples) > expected
    with pytest.raises(RuntimeError):
        loss_of(roi_head, samples, channels=3)
    assert roi_head.bbox_head.verified_classes is None

    head = roi_head.bbox_head
    cls_score = torch.randn(4, 6)
    labels = torch.tensor([0, 1, 2, 6])
    plain = head.loss_cls(cls_score, labels)
    rest = (torch.ones(4), torch.zeros(4, 4), torch.zeros(4, 4))
    with (
        pytest.raises(LongTailError),
        head.verifying(torch.ones(1, 6, dtype=torch.bool)),
    ):
        head.loss(torch.randn(4, 5), None, torch.zeros(4, 5), labels, *rest)
    torch.testing.assert_close(head.loss_cls(cls_score, labels), plain)
    assert loss_of(roi_head, unknown) == expected


def test_a_batch_without_rois_has_a_loss_of_zero():
    head = small_roi_head().bbox_head
    nothing = torch.zeros(0, 4)
    cls_score = torch.zeros(0, 6, requires_grad=True)
    with head.verifying(torch.ones(2, 6, dtype=torch.bool)):
        losses = head.loss(
            cls_score,
            None,
            torch.zeros(0, 5),
            torch.zeros(0, dtype=torch.int64),
            torch.zeros(0),
            nothing,
            nothing,
        )
    assert losses['loss_cls'] == 0
    losses['loss_cls'].backward()
    assert cls_score.grad is not None


def test_an_image_without_objects():
    roi_head = small_roi_head()
    value = loss_of(roi_head, [sample_of(1, [], [0, 5])])
    assert value == loss_of(roi_head, [sample_of(1, [], [])])


def test_a_loss_that_does_not_ask_needs_no_labels():
    softmax = dict(type='CrossEntropyLoss', use_sigmoid=False)
    roi_head = small_roi_head(
        BBOX_HEAD | dict(type='Shared2FCBBoxHead', loss_cls=softmax)
    )
    sample = sample_of(1, [], [], [0])
    del sample.present_labels, sample.absent_labels
    assert loss_of(roi_head, [sample]) > 0


def test_missing_labels_are_refused():
    sample = sample_of(4, [], [], [0])
    del sample.absent_labels
    with pytest.raises(LongTailError) as error:
        loss_of(small_roi_head(), [sample])
    assert_one_line(error, 'image 4', "'absent_labels'", 'meta_keys')


def test_heads_of_mmdet_are_refused():
    with pytest.raises(LongTailError) as error:
        small_roi_head(BBOX_HEAD | dict(type='Shared2FCBBoxHead'))
    assert_one_line(
        error,
        'LongTailStandardRoIHead',
        'EqualizationLoss',
        "type='LongTailShared2FCBBoxHead'",
    )


def test_the_head_of_c4_detectors_has_labels_too():
    bbox_head = BBOX_HEAD | dict(type='LongTailBBoxHead', with_avg_pool=True)
    del bbox_head['fc_out_channels']
    roi_head = small_roi_head(bbox_head)
    known, unknown = (
        loss_of(roi_head, [sample_of(1, [0], absent, [0])])
        for absent in ([3, 4, 5], [])
    )
    assert known > unknown


# -- a training ---------------------------------------------------------------


def test_a_training(folder, tmp_path):
    config = make_config(tmp_path, folder)
    config.work_dir = str(tmp_path / 'run')
    config.default_hooks.class_statistics = dict(type='ClassStatisticsHook')
    config.experiment_name = tmp_path.name
    for key in ('val_dataloader', 'val_cfg', 'val_evaluator'):
        config[key] = None
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        config[key] = None
    runner = Runner.from_cfg(config)
    model = runner.train()
    assert runner.iter == 3
    assert model.roi_head.bbox_head.verified_classes is None
    for parameter in model.roi_head.bbox_head.parameters():
        assert parameter.isfinite().all()
