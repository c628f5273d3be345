"""The parts of the recipe of the LVIS challenge 2019."""

from __future__ import annotations

import copy
import csv
import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import DATASETS, MODELS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from tiny import CLASS_NAMES, IMAGE_SIZE, make_data, write_config
from tool_runs import ROOT

from mmdet_longtail.datasets.samplers.image_classes import count_image_classes
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.test_time_augs import MaskTTAModel

CONFIGS = ROOT / 'configs' / 'lvis_challenge_2019'

MASKS = """
_base_ = './tiny.py'
model = dict(
    type='MaskRCNN',
    roi_head=dict(
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=1),
            out_channels=16,
            featmap_strides=[4, 8, 16, 32]),
        mask_head=dict(
            type='OptionalMaskFCNMaskHead', num_convs=1, in_channels=16,
            conv_out_channels=8, num_classes=4,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True))),
    train_cfg=dict(rcnn=dict(mask_size=14)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadOptionalMasks', with_bbox=True),
    dict(type='RandomFlip', prob=1.0),
    dict(type='Resize', scale=(96, 96)),
    dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_evaluator = dict(
    type='CocoMetric', metric=['bbox', 'segm'],
    ann_file=_base_.val_evaluator.ann_file)
tta_model = dict(type='MaskTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(s, s), keep_ratio=True)
             for s in (64, 96)],
            [dict(type='RandomFlip', prob=0.0),
             dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackDetInputs',
                  meta_keys=('img_id', 'ori_shape', 'img_shape',
                             'scale_factor', 'flip', 'flip_direction'))]])]
"""


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def read(path):
    return json.loads(path.read_text())


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def write_map(path, rows, columns=('extra', 'main')):
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def mask_config(folder):
    write_config(folder / 'tiny.py', folder)
    path = folder / 'masks.py'
    path.write_text(MASKS)
    return path


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Images, annotations, and a detector with a mask head."""
    folder = make_data(tmp_path_factory.mktemp('challenge'))
    mask_config(folder)
    return folder


@pytest.fixture(scope='module')
def detector(data):
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(data / 'masks.py').model)
    model.init_weights()
    # Untrained, all would have the same score, box and mask.
    for head in (model.roi_head.bbox_head, model.roi_head.mask_head):
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def refused(process):
    assert process.returncode == 1
    assert process.stderr.startswith('error: ')
    assert len(process.stderr.splitlines()) == 1
    return process.stderr


# -- regions to ignore -------------------------------------------------------


def naive_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    area = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return both / (sum(area) - both)


def regions_dataset(data, **options):
    return DATASETS.build(
        dict(
            type='IgnoreRegionsAnnotationFileDataset',
            data_root=str(data),
            ann_file='train.json',
            data_prefix=dict(img='images/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='RandomFlip', prob=1.0),
                dict(type='PackDetInputs'),
            ],
        )
        | options
    )


@pytest.fixture(scope='module')
def second_file(data):
    """Boxes of the training images: some annotated there, some not."""
    content = read(data / 'train.json')
    rng = np.random.default_rng(0)
    content['annotations'] = []
    for number in range(60):
        xy, size = rng.uniform(0, 40, 2), rng.uniform(2, 24, 2)
        content['annotations'].append(
            dict(
                id=number + 1,
                image_id=1000 + number % 3,
                category_id=7,
                bbox=[*xy.tolist(), *size.tolist()],
            )
        )
    # Other ids and another folder, the same file names.
    content['images'] = [
        image | dict(id=999 + image['id'], file_name='x/' + image['file_name'])
        for image in content['images']
    ]
    content['categories'] = [dict(id=7, name='thing')]
    write(data / 'second.json', content)
    return content


@pytest.mark.parametrize('ignore_iou', [0.2, 0.5])
def test_what_is_not_annotated_is_ignored(data, second_file, ignore_iou):
    plain = regions_dataset(data)
    dataset = regions_dataset(
        data, ignore_file='second.json', ignore_iou=ignore_iou
    )
    total = 0
    for index in range(len(plain)):
        annotated = plain.get_data_info(index)['instances']
        instances = dataset.get_data_info(index)['instances']
        assert instances[: len(annotated)] == annotated
        expected = []
        for annotation in second_file['annotations']:
            if annotation['image_id'] != 1000 + index:
                continue
            x, y, w, h = annotation['bbox']
            box = [x, y, x + w, y + h]
            if all(naive_iou(box, a['bbox']) < ignore_iou for a in annotated):
                expected.append(box)
        found = instances[len(annotated) :]
        assert [i['bbox'] for i in found] == expected
        assert all(i['ignore_flag'] == 1 for i in found)
        total += len(found)
    assert 0 < total < 60  # both sides of the rule were seen
    old, new = count_image_classes(plain), count_image_classes(dataset)
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(before, after)


def test_regions_come_through_the_pipeline(data, second_file):
    dataset = regions_dataset(data, ignore_file='second.json')
    sample = dataset[0]['data_samples']
    info = dataset.get_data_info(0)['instances']
    regions = [i['bbox'] for i in info if i['ignore_flag']]
    assert len(sample.gt_instances) == len(info) - len(regions)
    found = sample.ignored_instances.bboxes.tensor.numpy()
    expected = np.array(regions)
    expected[:, [0, 2]] = IMAGE_SIZE - expected[:, [2, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def naive_assignment(priors, boxes, regions, pos_iou, neg_iou, share):
    """0 background, -1 ignored, k + 1 object k."""
    result = []
    for prior in priors:
        iou = [naive_iou(prior, box) for box in boxes]
        best = int(np.argmax(iou))
        if iou[best] >= pos_iou:
            result.append(best + 1)
            continue
        kind = 0 if iou[best] < neg_iou else -1
        area = (prior[2] - prior[0]) * (prior[3] - prior[1])
        for region in regions:
            width = min(prior[2], region[2]) - max(prior[0], region[0])
            height = min(prior[3], region[3]) - max(prior[1], region[1])
            if max(width, 0) * max(height, 0) > share * area:
                kind = -1
        result.append(kind)
    return result


def test_background_in_regions_is_ignored_and_objects_are_not():
    assigner = TASK_UTILS.build(
        dict(
            type='BackgroundIgnoringAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            match_low_quality=False,
        )
    )
    rng = np.random.default_rng(0)

    def boxes(number):
        xy = rng.uniform(0, 40, (number, 2))
        return np.hstack([xy, xy + rng.uniform(8, 24, (number, 2))])

    objects, regions = boxes(4), boxes(3)
    priors = np.vstack([boxes(200), objects + 1])
    ground_truth = InstanceData(
        bboxes=torch.tensor(objects), labels=torch.arange(4)
    )
    result = assigner.assign(
        InstanceData(priors=torch.tensor(priors)),
        ground_truth,
        InstanceData(bboxes=torch.tensor(regions)),
    )
    expected = naive_assignment(priors, objects, regions, 0.5, 0.4, 0.5)
    assert result.gt_inds.tolist() == expected
    assert {-1, 0, 1} <= set(expected)
    on_region = InstanceData(bboxes=torch.tensor(objects))
    result = assigner.assign(
        InstanceData(priors=torch.tensor(objects)), ground_truth, on_region
    )
    assert result.gt_inds.tolist() == [1, 2, 3, 4]
    nothing = InstanceData(bboxes=torch.zeros(0, 4))
    for ignored in (None, nothing):
        result = assigner.assign(
            InstanceData(priors=torch.tensor(priors)), ground_truth, ignored
        )
        expected = naive_assignment(priors, objects, [], 0.5, 0.4, 0.5)
        assert result.gt_inds.tolist() == expected


def test_lvis_datasets_have_image_level_labels_too(data, tmp_path):
    from mmdet.datasets import LVISV05Dataset

    content = read(data / 'train.json')
    names = LVISV05Dataset.METAINFO['classes']
    content['categories'] = [
        dict(id=k + 1, name=name) for k, name in enumerate(names)
    ]
    for image in content['images']:
        image |= dict(
            neg_category_ids=[9],
            not_exhaustive_category_ids=[],
            file_name='COCO_train2014_00000000000' + str(image['id']) + '.jpg',
        )
    write(tmp_path / 'lvis.json', content)
    coco = copy.deepcopy(content)
    for image in coco['images']:
        image['file_name'] = image['file_name'][-16:]
        image['id'] += 5
    for annotation in coco['annotations']:
        annotation['image_id'] += 5
        annotation['bbox'][:2] = [40, 40]
    write(tmp_path / 'coco.json', coco)
    dataset = DATASETS.build(
        dict(
            type='IgnoreRegionsLVISV05Dataset',
            data_root=str(tmp_path),
            ann_file='lvis.json',
            data_prefix=dict(img=''),
            ignore_file='coco.json',
            pipeline=[],
        )
    )
    info = dataset.get_data_info(0)
    assert info['present_labels'] == [0, 1, 2, 3]
    assert info['absent_labels'] == [8]
    assert sum(i['ignore_flag'] for i in info['instances']) == 4


def test_wrong_ignore_files_are_named(data, second_file, tmp_path):
    other = copy.deepcopy(second_file)
    for image in other['images']:
        image['file_name'] += '.png'
    write(data / 'other.json', other)
    with pytest.raises(LongTailError, match='none of the images'):
        regions_dataset(data, ignore_file='other.json')
    for image in other['images']:
        image['file_name'] = f'{image["id"]}/one.png'
    write(data / 'alike.json', other)
    with pytest.raises(LongTailError, match='4 images are called'):
        regions_dataset(data, ignore_file='alike.json')
    with pytest.raises(LongTailError, match='no such file'):
        regions_dataset(data, ignore_file='missing.json')
    with pytest.raises(LongTailError, match='ignore_iou is 0'):
        regions_dataset(data, ignore_iou=0)


# -- boxes without masks -----------------------------------------------------


def without_masks(content, indices):
    content = copy.deepcopy(content)
    for index in indices:
        del content['annotations'][index]['segmentation']
    return content


def first_batch(data, ann_file):
    config = Config.fromfile(data / 'masks.py')
    config.train_dataloader.dataset.ann_file = ann_file
    dataset = DATASETS.build(config.train_dataloader.dataset)
    return pseudo_collate([dataset[0], dataset[1]])


def test_an_object_without_mask_keeps_its_box(data):
    content = read(data / 'train.json')
    content = without_masks(content, [0, 2])
    content['annotations'][1]['segmentation'] = []
    write(data / 'some.json', content)
    sample = first_batch(data, 'some.json')['data_samples'][0]
    assert len(sample.ignored_instances) == 0
    areas = sample.gt_instances.masks.areas
    assert areas.tolist()[:3] == [0, 0, 0]
    assert areas[3] == pytest.approx(20 * 20 * 1.5**2, rel=0.1)


def losses_of(detector, batch):
    """Losses, what the mask loss was given, and what its head was given."""
    torch.manual_seed(0)
    model = copy.deepcopy(detector).train()
    given, sampled = [], []
    head = model.roi_head.mask_head
    head.loss_mask.register_forward_hook(
        lambda module, inputs, output: given.extend(inputs)
    )

    def loss_and_target(mask_preds, sampling_results, *args):
        sampled.extend(sampling_results)
        return type(head).loss_and_target(
            head, mask_preds, sampling_results, *args
        )

    head.loss_and_target = lambda **kwargs: loss_and_target(*kwargs.values())
    batch = model.data_preprocessor(copy.deepcopy(batch), training=True)
    losses = model.forward(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    return losses, given, sampled, model


def test_only_objects_with_masks_make_mask_loss(data, detector):
    """Equal to mmdet's head, row by row, on the rows that have a mask."""
    content = read(data / 'train.json')
    write(data / 'some.json', without_masks(content, [0, 2]))
    full, (logits, targets, labels), sampled, _ = losses_of(
        detector, first_batch(data, 'train.json')
    )
    some, (kept_logits, kept_targets, kept_labels), _, _ = losses_of(
        detector, first_batch(data, 'some.json')
    )
    # Masks change neither the proposals nor what they are assigned to.
    assert some['loss_cls'] == full['loss_cls']
    assert some['loss_bbox'] == full['loss_bbox']
    has_mask = [
        image != 0 or index not in (0, 2)
        for image, sampling in enumerate(sampled)
        for index in sampling.pos_assigned_gt_inds.tolist()
    ]
    assert len(has_mask) == len(logits) and 0 < sum(has_mask) < len(has_mask)
    assert torch.equal(kept_logits, logits[has_mask])
    assert torch.equal(kept_targets, targets[has_mask])
    assert torch.equal(kept_labels, labels[has_mask])
    expected = np.mean(
        [
            F.binary_cross_entropy_with_logits(row[label], target).item()
            for row, target, label, kept in zip(
                logits, targets, labels, has_mask
            )
            if kept
        ]
    )
    assert some['loss_mask'].item() == pytest.approx(expected, rel=1e-5)


def test_without_any_mask_the_loss_is_zero_and_has_a_gradient(data, detector):
    content = read(data / 'train.json')
    everything = range(len(content['annotations']))
    write(data / 'boxes.json', without_masks(content, everything))
    losses, _, _, model = losses_of(detector, first_batch(data, 'boxes.json'))
    assert losses['loss_mask'] == 0
    assert losses['loss_bbox'] > 0
    for parameter in model.roi_head.mask_head.parameters():
        assert (parameter.grad == 0).all()


# -- several views -----------------------------------------------------------


def view_pipeline(scales, flips):
    return [
        dict(type='LoadImageFromFile'),
        dict(
            type='TestTimeAug',
            transforms=[
                [
                    dict(type='Resize', scale=s, keep_ratio=True)
                    for s in scales
                ],
                [
                    dict(type='RandomFlip', prob=float(bool(f)), direction=d)
                    for f, d in flips
                ],
                [
                    dict(
                        type='PackDetInputs',
                        meta_keys=(
                            'img_id',
                            'ori_shape',
                            'img_shape',
                            'scale_factor',
                            'flip',
                            'flip_direction',
                        ),
                    )
                ],
            ],
        ),
    ]


def views_of(data, scales, flips):
    """Views of an image that is not square, two images a batch."""
    path = data / 'images' / 'wide.png'
    if not path.exists():
        picture = cv2.imread(str(data / 'images' / 'train_0.png'))
        cv2.imwrite(str(path), picture[:48])
    dataset = DATASETS.build(
        dict(
            type='AnnotationFileDataset',
            ann_file=str(data / 'val.json'),
            data_prefix=dict(img=str(data / 'images')),
            test_mode=True,
            pipeline=view_pipeline(scales, flips),
        )
    )
    wide = dataset.pipeline(dict(img_path=str(path), img_id=9))
    return pseudo_collate([wide, dataset[0]])


NO_FLIP = [(False, 'horizontal')]


@pytest.mark.parametrize('scale', [(64, 64), (96, 96)])
def test_one_view_is_the_plain_prediction(data, detector, scale):
    batch = views_of(data, [scale], NO_FLIP)
    [merged, other] = MaskTTAModel(detector).test_step(copy.deepcopy(batch))
    single = {key: value[0] for key, value in batch.items()}
    with torch.no_grad():
        [plain, _] = detector.test_step(single)
    found, expected = merged.pred_instances, plain.pred_instances
    assert len(found) > 3
    torch.testing.assert_close(found.bboxes, expected.bboxes)
    torch.testing.assert_close(found.scores, expected.scores)
    assert torch.equal(found.labels, expected.labels)
    assert found.masks.shape == expected.masks.shape
    assert (found.masks != expected.masks).float().mean() < 1e-3
    assert found.masks.any()
    assert len(other.pred_instances) > 0


def naive_boxes(detector, batch, view):
    """Boxes, scores and labels of one view, in the original image."""
    single = {key: copy.deepcopy(value[view]) for key, value in batch.items()}
    with torch.no_grad():
        sample = detector.test_step(single)[0]
    found = sample.pred_instances
    height, width = sample.ori_shape
    rows = []
    for (x1, y1, x2, y2), score, label in zip(
        found.bboxes.tolist(), found.scores.tolist(), found.labels.tolist()
    ):
        direction = sample.flip_direction if sample.flip else ''
        if direction in ('horizontal', 'diagonal'):
            x1, x2 = width - x2, width - x1
        if direction in ('vertical', 'diagonal'):
            y1, y2 = height - y2, height - y1
        rows.append((score, label, (x1, y1, x2, y2)))
    return rows


def naive_nms(rows, threshold):
    kept = []
    for row in sorted(rows, key=lambda row: -row[0]):
        if all(
            other[1] != row[1] or naive_iou(other[2], row[2]) <= threshold
            for other in kept
        ):
            kept.append(row)
    return kept


def naive_mask_probs(detector, batch, view, boxes, labels):
    """The mask head on boxes in a view, one box at a time."""
    single = {key: copy.deepcopy(value[view]) for key, value in batch.items()}
    single = detector.data_preprocessor(single, False)
    meta = single['data_samples'][0].metainfo
    height, width = meta['img_shape']
    scale = meta['scale_factor']
    probs = []
    with torch.no_grad():
        x = detector.extract_feat(single['inputs'])
        for (x1, y1, x2, y2), label in zip(boxes, labels):
            x1, x2, y1, y2 = (
                x1 * scale[0],
                x2 * scale[0],
                y1 * scale[1],
                y2 * scale[1],
            )
            direction = meta['flip_direction'] if meta['flip'] else ''
            if direction in ('horizontal', 'diagonal'):
                x1, x2 = width - x2, width - x1
            if direction in ('vertical', 'diagonal'):
                y1, y2 = height - y2, height - y1
            roi = torch.tensor([[0, x1, y1, x2, y2]])
            logits = detector.roi_head._mask_forward(x, roi)['mask_preds']
            prob = logits[0, label].sigmoid().numpy()
            if direction in ('horizontal', 'diagonal'):
                prob = prob[:, ::-1]
            if direction in ('vertical', 'diagonal'):
                prob = prob[::-1]
            probs.append(prob)
    return probs


@pytest.mark.parametrize('mask_views', [None, [1]])
@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_views_merge_as_a_loop_does(data, detector, direction, mask_views):
    batch = views_of(
        data, [(64, 64), (96, 80)], [(False, direction), (True, direction)]
    )
    assert len(batch['inputs']) == 4
    model = MaskTTAModel(detector, mask_views=mask_views)
    pasted = []
    head = detector.roi_head.mask_head

    class Spy(type(head)):
        def predict_by_feat(self, mask_preds, *args, **kwargs):
            pasted.extend(mask_preds)
            return super().predict_by_feat(mask_preds, *args, **kwargs)

    head.__class__, plain = Spy, type(head)
    try:
        merged = model.test_step(copy.deepcopy(batch))[0].pred_instances
    finally:
        head.__class__ = plain
    rows = [
        row for view in range(4) for row in naive_boxes(detector, batch, view)
    ]
    expected = naive_nms(rows, 0.5)[:300]
    np.testing.assert_allclose(
        merged.scores, [row[0] for row in expected], atol=1e-5
    )
    np.testing.assert_allclose(
        merged.bboxes, [row[2] for row in expected], atol=1e-3
    )
    probs = [
        naive_mask_probs(
            detector,
            batch,
            view,
            merged.bboxes.tolist(),
            merged.labels.tolist(),
        )
        for view in mask_views or range(4)
    ]
    np.testing.assert_allclose(
        pasted[0][:, 0], np.mean(probs, axis=0), atol=1e-4
    )
    assert merged.masks.shape == (len(merged), 48, 64)


def test_nothing_found_is_no_error(data, detector):
    model = copy.deepcopy(detector)
    model.roi_head.test_cfg = copy.deepcopy(model.roi_head.test_cfg)
    model.roi_head.test_cfg.score_thr = 1.0
    batch = views_of(data, [(64, 64), (96, 96)], NO_FLIP)
    merged = MaskTTAModel(model).test_step(batch)[0].pred_instances
    assert len(merged) == 0
    assert merged.masks.shape == (0, 48, 64)


def test_views_refuse_what_they_cannot_do(data, detector):
    config = Config.fromfile(data / 'tiny.py')
    with pytest.raises(LongTailError, match='FasterRCNN'):
        MaskTTAModel(MODELS.build(config.model))
    model = MaskTTAModel(detector, mask_views=[1])
    batch = views_of(data, [(64, 64)], NO_FLIP)
    with pytest.raises(LongTailError, match='mask_views has 1'):
        model.test_step(batch)


def test_test_tool_with_views(data, detector, call_tool):
    torch.save(dict(state_dict=detector.state_dict()), data / 'weights.pth')
    process = call_tool(
        'test.py', 'masks.py', 'weights.pth', '--tta', '--out', 'tta',
        '--json', 'tta.json', cwd=data,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    results = read(data / 'tta.segm.json')
    assert results and all('segmentation' in result for result in results)
    assert 'coco/segm_mAP' in read(data / 'tta.json')['metrics']
    process = call_tool('test.py', 'tiny.py', 'weights.pth', '--tta', cwd=data)
    assert 'tta_model' in refused(process)


# -- tools/dataset_converters/merge_annotations.py ----------------------------------------------


def extra_file(path, **of_image):
    images = [
        dict(id=k, file_name=f'e{k}.jpg', width=50, height=40, **of_image)
        for k in (1, 2, 3)
    ]
    boxes = [(1, 1), (1, 2), (2, 3), (3, 2), (3, 2)]
    annotations = [
        dict(id=k, image_id=image, category_id=category, bbox=[k, 2, 10, 5])
        for k, (image, category) in enumerate(boxes)
    ]
    annotations[-1]['iscrowd'] = 1
    categories = [
        dict(id=k, name=name)
        for k, name in enumerate(('Coin', 'Tile', 'Frame'), 1)
    ]
    return write(
        path,
        dict(images=images, annotations=annotations, categories=categories),
    )


def test_merged_annotations(data, call_tool, tmp_path):
    extra_file(tmp_path / 'extra.json')
    main = read(data / 'train.json')
    for image in main['images']:
        image |= dict(neg_category_ids=[1], not_exhaustive_category_ids=[])
    write(tmp_path / 'main.json', main)
    rows = [('Tile', 'square'), ('Coin', 'disc')]
    write_map(tmp_path / 'map.csv', rows)
    process = call_tool(
        'dataset_converters/merge_annotations.py', 'main.json', 'extra.json', '--map', 'map.csv',
        '--file-prefix', '../extra/', '--out', 'merged.json',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert '2 images and 4 boxes of 2 classes added, 1 boxes' in process.stdout
    merged = read(tmp_path / 'merged.json')
    assert merged['categories'] == main['categories']
    images, annotations = merged['images'], merged['annotations']
    assert images[:4] == main['images']
    boxes = len(main['annotations'])
    assert annotations[:boxes] == main['annotations']
    assert images[4:] == [
        dict(
            id=identity,
            width=50,
            height=40,
            file_name=f'../extra/{name}',
            neg_category_ids=[],
            not_exhaustive_category_ids=[],
        )
        for identity, name in ((5, 'e1.jpg'), (6, 'e3.jpg'))
    ]
    added = annotations[boxes:]
    assert [(a['image_id'], a['category_id']) for a in added] == [
        (5, 1),
        (5, 2),
        (6, 2),
        (6, 2),
    ]
    assert all(a['area'] == 50 and 'segmentation' not in a for a in added)
    assert added[-1]['iscrowd'] == 1
    ids = [a['id'] for a in annotations]
    assert len(set(ids)) == len(ids)


def test_images_of_lvis_v1_are_named_by_url(data, call_tool, tmp_path):
    extra_file(tmp_path / 'extra.json')
    main = read(data / 'train.json')
    for image in main['images']:
        image['coco_url'] = 'http://images.cocodataset.org/' + image.pop(
            'file_name'
        )
    write(tmp_path / 'main.json', main)
    write_map(tmp_path / 'map.csv', [('Coin', 'disc')])
    process = call_tool(
        'dataset_converters/merge_annotations.py', 'main.json', 'extra.json', '--map', 'map.csv',
        '--file-prefix', 'x/', '--out', 'merged.json',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    last = read(tmp_path / 'merged.json')['images'][-1]
    assert last['coco_url'] == 'http://images.cocodataset.org/x/e1.jpg'
    assert 'neg_category_ids' not in last


@pytest.mark.parametrize(
    ('rows', 'columns', 'expected'),
    [
        ([('Coin', 'disk')], None, "line 2: main is 'disk', which is no "),
        ([('coin', 'disc')], None, "is 'Coin' meant?"),
        ([('Coin', 'disc')], ('extra', 'name'), "no column 'main'"),
        ([], None, 'maps no class'),
        ([('Coin', 'disc'), ('Coin', 'ring')], None, 'a second time'),
        ([('Coin',)], None, "main is ''"),
    ],
)
def test_class_maps_that_do_not_fit(
    rows, columns, expected, data, call_tool, tmp_path
):
    extra_file(tmp_path / 'extra.json')
    write_map(tmp_path / 'map.csv', rows, columns or ('extra', 'main'))
    process = call_tool(
        'dataset_converters/merge_annotations.py', data / 'train.json', 'extra.json',
        '--map', 'map.csv', '--out', 'merged.json',
    )  # fmt: skip
    assert expected in refused(process)
    assert not (tmp_path / 'merged.json').exists()


def test_files_that_cannot_be_merged(data, call_tool, tmp_path):
    write_map(tmp_path / 'map.csv', [('Coin', 'disc')])

    def merge(extra, class_map='map.csv'):
        return refused(
            call_tool(
                'dataset_converters/merge_annotations.py', data / 'train.json', extra, '--map',
                class_map, '--out', 'merged.json',
            )
        )  # fmt: skip

    content = read(extra_file(tmp_path / 'extra.json'))
    del content['images'][0]['width']
    write(tmp_path / 'size.json', content)
    assert "image 1 has no 'width'" in merge('size.json')
    assert 'map2.csv: no such file' in merge('extra.json', 'map2.csv')
    content = read(extra_file(tmp_path / 'extra.json'))
    content['images'][0]['file_name'] = 'train_1.png'
    write(tmp_path / 'same.json', content)
    assert "'train_1.png' is an image of" in merge('same.json')
    content['annotations'] = content['annotations'][1:]
    write(tmp_path / 'other.json', content)
    assert 'no box is of a class' in merge('other.json')


RECIPE = """
_base_ = './masks.py'
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
train_dataloader = dict(dataset=dict(
    type='IgnoreRegionsAnnotationFileDataset', ann_file='merged.json',
    ignore_file='train.json', ignore_iou=1.0))
assigner = dict(type='BackgroundIgnoringAssigner')
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=4)
model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=loss_cls)),
    train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)))
val_cfg, val_dataloader, val_evaluator = None, None, None
"""


def test_the_parts_work_together(call_tool, tmp_path):
    """EQL, ignored regions, images with boxes only, and views of them."""
    folder = make_data(tmp_path / 'data')
    extra_file(folder / 'extra.json')
    for k in (1, 3):
        picture = np.full((40, 50, 3), 90, np.uint8)
        cv2.imwrite(str(folder / 'images' / f'e{k}.jpg'), picture)
    write_map(folder / 'map.csv', [('Coin', 'disc'), ('Tile', 'square')])
    mask_config(folder)
    (folder / 'recipe.py').write_text(RECIPE)
    for command in (
        'merge_annotations.py train.json extra.json --map map.csv '
        '--out merged.json',
        'train.py recipe.py --work-dir work',
        'test.py recipe.py work/epoch_1.pth --tta --out found',
    ):
        process = call_tool(*command.split(), cwd=folder)
        assert process.returncode == 0, process.stdout + process.stderr
    counts = torch.load(folder / 'work' / 'epoch_1.pth', weights_only=True)
    disc = counts['class_statistics']['classes'][0]
    assert (disc['image_count'], disc['instance_count']) == (5, 5)
    assert (folder / 'found.segm.json').exists()


# -- configs -----------------------------------------------------------------


def test_views_of_the_configs():
    """600 to 1400, step 200, with flips; box testing takes masks at 800."""
    [path] = CONFIGS.glob('*_box-views_*.py')
    config = Config.fromfile(path)
    pipeline = TRANSFORMS.build(config.tta_pipeline[1])
    picture = np.zeros((30, 40, 3), np.uint8)
    views = pipeline(
        dict(img=picture, ori_shape=(30, 40), img_id=0, img_path='')
    )['data_samples']
    found = [(min(view.img_shape), view.flip) for view in views]
    assert found == [
        (side, flip)
        for side in (600, 800, 1000, 1200, 1400)
        for flip in (False, True)
    ]
    [chosen] = config.tta_model.mask_views
    assert found[chosen] == (800, False)
    [path] = CONFIGS.glob('*_mask-views_*.py')
    assert Config.fromfile(path).tta_model.mask_views is None


def test_readme_names_every_config():
    text = (CONFIGS / 'README.md').read_text()
    for path in CONFIGS.glob('*.py'):
        assert path.name in text or path.name.partition('coco')[2] in text


# -- tools/analysis_tools/ensemble.py -------------------------------------------------------


def box_mask(x, y, w, h):
    picture = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8, order='F')
    picture[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(picture)
    return dict(encoded, counts=encoded['counts'].decode())


def detections(seed, number, categories, iou_type):
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(number):
        x, y, w, h = (int(v) for v in rng.integers(2, 30, 4))
        shape = dict(bbox=[x, y, w, h])
        if iou_type == 'segm':
            shape = dict(segmentation=box_mask(x, y, w, h))
        results.append(
            dict(
                image_id=int(rng.integers(1, 3)),
                category_id=int(rng.choice(categories)),
                score=float(rng.uniform()),
                box=[x, y, x + w, y + h],
                **shape,
            )
        )
    return results


def naive_ensemble(main, expert, category_of, power_of, limit):
    """Re-score, map, unite, NMS and cut, one detection at a time."""
    rows = []
    for result in main:
        power = power_of.get(result['category_id'], 1)
        rows.append(dict(result, score=result['score'] ** power))
    for result in expert:
        if result['category_id'] in category_of:
            category = category_of[result['category_id']]
            rows.append(dict(result, category_id=category))
    kept = []
    for row in sorted(rows, key=lambda row: -row['score']):
        if all(
            other['image_id'] != row['image_id']
            or other['category_id'] != row['category_id']
            or naive_iou(other['box'], row['box']) <= 0.5
            for other in kept
        ):
            kept.append(row)
    found = []
    for image in (1, 2):
        found += [row for row in kept if row['image_id'] == image][:limit]
    return {
        (r['image_id'], r['category_id'], round(r['score'], 9)) for r in found
    }


@pytest.fixture
def ensemble(data, tmp_path, call_tool):
    """Results of a detector and an expert, and counts that make groups."""
    counts = dict(zip(CLASS_NAMES, (500, 50, 5, 3), strict=True))
    write(
        tmp_path / 'stats.json',
        {
            'format': 'mmdet_longtail.class_statistics',
            'version': 1,
            'source': 'train',
            'num_images': 1000,
            'num_annotated_images': 520,
            'classes': [
                dict(name=name, image_count=n, instance_count=n)
                for name, n in counts.items()
            ],
        },
    )
    extra_file(tmp_path / 'expert_ann.json')
    write_map(tmp_path / 'map.csv', [('Frame', 'ring'), ('Coin', 'disc')])
    write(tmp_path / 'main.json', detections(0, 80, [1, 2, 3, 4], 'bbox'))
    write(tmp_path / 'expert.json', detections(1, 60, [1, 2, 3], 'bbox'))

    def run(*options, main='main.json'):
        return call_tool(
            'analysis_tools/ensemble.py', main, 'expert.json', '--map', 'map.csv',
            '--expert-ann', 'expert_ann.json', '--ann', data / 'val.json',
            '--out', 'out.json', *options,
        )  # fmt: skip

    return run


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_ensemble_is_what_a_loop_makes(ensemble, tmp_path, data, iou_type):
    main = detections(2, 80, [1, 2, 3, 4], iou_type)
    expert = detections(3, 60, [1, 2, 3], iou_type)
    write(tmp_path / 'main.json', main)
    write(tmp_path / 'expert.json', expert)
    process = ensemble(
        '--statistics', 'stats.json', '--rescore', 'rare=0.5', 'common=0.8',
        '--max-detections', 40, '--iou-type', iou_type,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = read(tmp_path / 'out.json')
    expected = naive_ensemble(
        main, expert, {1: 1, 3: 3}, {2: 0.8, 3: 0.5, 4: 0.5}, 40
    )
    assert {
        (r['image_id'], r['category_id'], round(r['score'], 9)) for r in found
    } == expected
    assert len(found) == len(expected)
    key = {'bbox': 'bbox', 'segm': 'segmentation'}[iou_type]
    assert all(key in result for result in found)


def test_ensemble_is_evaluated(ensemble, data, call_tool):
    assert ensemble().returncode == 0
    process = call_tool('evaluate.py', 'out.json', '--ann', data / 'val.json')
    assert process.returncode == 0, process.stderr


def test_ensemble_of_nothing_and_of_a_test_set(ensemble, tmp_path, data):
    write(tmp_path / 'main.json', [])
    write(tmp_path / 'expert.json', [])
    content = read(data / 'val.json')
    del content['annotations']
    test_set = write(tmp_path / 'test.json', content)
    process = ensemble('--ann', test_set)
    assert process.returncode == 0, process.stderr
    assert read(tmp_path / 'out.json') == []


def test_ensemble_names_what_is_wrong(ensemble, tmp_path, data, call_tool):
    line = refused(ensemble('--rescore', 'rare=0.5'))
    assert '--statistics or --train' in line
    line = refused(ensemble('--map', 'map.csv', 'map.csv'))
    assert '--map: found 2 files for 1 experts' in line
    line = refused(ensemble('--out', 'main.json'))
    assert 'main.json: is read by this command' in line
    line = refused(ensemble('--iou-type', 'segm'))
    assert "has no 'segmentation'" in line
    line = refused(ensemble('--ann', 'expert_ann.json'))
    assert 'which expert_ann.json does not have' in line
    write(tmp_path / 'expert.json', detections(1, 9, [8], 'bbox'))
    line = refused(ensemble())
    assert 'has category_id 8' in line and 'expert_ann.json' in line
    write_map(tmp_path / 'map.csv', [('Frame', 'rink')])
    assert "is 'ring' meant?" in refused(ensemble())
    assert not (tmp_path / 'out.json').exists()
    wrong = ensemble('--rescore', 'rarely=0.5')
    assert wrong.returncode == 2
    assert 'names no group' in wrong.stderr
