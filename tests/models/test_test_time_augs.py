"""Views of an image are merged."""

import copy

import cv2
import naive
import numpy as np
import pytest
import torch
from masks import (
    build_mask_detector,
    error_of,
    make_mask_data,
    read,
)
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.test_time_augs import MaskTTAModel


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


@pytest.fixture(scope='module')
def detector(data):
    return build_mask_detector(data)


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
            other[1] != row[1] or naive.box_iou(other[2], row[2]) <= threshold
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
    with pytest.raises(LongTailError, match='mask_views is'):
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
    assert 'tta_model' in error_of(process)
