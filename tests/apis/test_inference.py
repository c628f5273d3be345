"""A checkpoint alone is enough to detect: no annotations, no config file."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loss_contract import follows_from
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.runner import Runner
from tiny import CLASS_NAMES, make_data, write_config
from tool_runs import refused

from mmdet_longtail.apis.predict import predict
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional.score_thresholds import (
    ScoreThresholds,
)
from mmdet_longtail.structures import Checkpoint

C = len(CLASS_NAMES)
LOSSES = {
    'EqualizationLoss': dict(frequency_threshold=0.6),
    'BalancedGroupSoftmaxLoss': dict(bin_edges=(2, 4)),
}


@pytest.fixture(scope='module', params=LOSSES)
def trained(request, tmp_path_factory):
    """A checkpoint and an image; everything else of the training is gone."""
    folder = tmp_path_factory.mktemp('trained')
    data = make_data(folder / 'data')
    config_path = write_config(folder / 'config.py', data)
    config = Config.fromfile(config_path)
    config.merge_from_dict(
        {
            'default_hooks.class_statistics': dict(type='ClassStatisticsHook'),
            'model.roi_head.bbox_head.loss_cls': dict(
                _delete_=True,
                type=request.param,
                num_classes=C,
                **LOSSES[request.param],
            ),
        }
    )
    config.work_dir = str(folder / 'work_dir')
    config.experiment_name = folder.name
    Runner.from_cfg(config).train()
    checkpoint = folder / 'kept' / 'detector.pth'
    image = folder / 'kept' / 'image.png'
    checkpoint.parent.mkdir()
    shutil.move(folder / 'work_dir' / 'epoch_1.pth', checkpoint)
    shutil.move(data / 'images' / 'train_0.png', image)
    for gone in (data, folder / 'work_dir'):
        shutil.rmtree(gone)
    config_path.unlink()
    return str(checkpoint), str(image), request.param


@pytest.fixture(scope='module')
def model(trained):
    """The detector, by mmdet's way of building one from a checkpoint."""
    saved = torch.load(trained[0], map_location='cpu', weights_only=True)
    config = Config.fromstring(saved['meta']['cfg'], '.py')
    return init_detector(config, trained[0], device='cpu')


def test_the_loss_and_the_classes_come_back(trained, model):
    loss = model.roi_head.bbox_head.loss_cls
    assert type(loss).__name__ == trained[2]
    saved = Checkpoint.load(trained[0])
    assert saved.class_statistics.image_count.tolist() == [4, 3, 2, 1]
    assert follows_from(loss, saved.class_statistics)
    assert tuple(model.dataset_meta['classes']) == CLASS_NAMES


def test_scores_are_those_of_the_activation(trained, model):
    result = inference_detector(model, trained[1]).pred_instances
    assert len(result) > 0
    assert set(result.labels.tolist()) <= set(range(C))
    load, resize, _, pack = model.cfg.test_pipeline
    pipeline = Compose([load, resize, pack])
    data = pipeline(dict(img_path=trained[1], img_id=0))
    batch = model.data_preprocessor(
        dict(inputs=[data['inputs']], data_samples=[data['data_samples']])
    )
    head = model.roi_head
    with torch.no_grad():
        features = model.extract_feat(batch['inputs'])
        [proposals] = model.rpn_head.predict(features, batch['data_samples'])
        rois = torch.cat([torch.zeros(len(proposals), 1), proposals.bboxes], 1)
        cls_score = head._bbox_forward(features, rois)['cls_score']
        probs = head.bbox_head.loss_cls.get_activation(cls_score)
    assert probs.shape == (len(proposals), C + 1)
    for score, label in zip(result.scores, result.labels):
        distance = (probs[:, label] - score).abs().min()
        assert distance < 1e-6


def test_det_inferencer_needs_only_the_weights(trained, model):
    inferencer = DetInferencer(weights=trained[0], device='cpu')
    answer = inferencer(trained[1], no_save_vis=True, pred_score_thr=0.0)
    [prediction] = answer['predictions']
    expected = inference_detector(model, trained[1]).pred_instances
    assert prediction['labels'] == expected.labels.tolist()
    np.testing.assert_allclose(
        prediction['scores'], expected.scores, rtol=1e-6
    )
    assert tuple(inferencer.model.dataset_meta['classes']) == CLASS_NAMES


# -- longtail predict ---------------------------------------------------------


@pytest.fixture
def photos(trained, tmp_path):
    """A folder with the image, another of its size in a subfolder, a text."""
    folder = tmp_path / 'photos'
    (folder / 'deep').mkdir(parents=True)
    shutil.copy(trained[1], folder / 'a.png')
    shutil.copy(trained[1], folder / 'deep' / 'a.png')
    (folder / 'notes.txt').write_text('no image')
    return folder


def test_predict(trained, model, photos, tmp_path, call_tool):
    outcome = call_tool(
        *('predict.py', trained[0], photos, '--out', 'found'),
        *('--score-thr', 0.0),
    )
    assert outcome.returncode == 0, outcome.stderr
    assert ' detections of ' in outcome.stdout
    assert 'next: longtail score-thresholds' in outcome.stdout
    content = json.loads((tmp_path / 'found/predictions.json').read_text())
    assert content['info']['image_folder'] == str(photos)
    assert [c['name'] for c in content['categories']] == [*CLASS_NAMES]
    names = [image['file_name'] for image in content['images']]
    assert names == ['a.png', 'deep/a.png']
    for name in names:
        assert (tmp_path / 'found' / 'pictures' / name).is_file()
    assert {(i['width'], i['height']) for i in content['images']} == {(64, 64)}
    expected = inference_detector(model, trained[1]).pred_instances
    corners = expected.bboxes.numpy()
    for image in content['images']:
        found = [
            result
            for result in content['annotations']
            if result['image_id'] == image['id']
        ]
        assert len(found) == len(expected) > 0
        np.testing.assert_allclose(
            [result['score'] for result in found], expected.scores, rtol=1e-5
        )
        labels = [result['category_id'] - 1 for result in found]
        assert labels == expected.labels.tolist()
        boxes = np.array([result['bbox'] for result in found])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, corners, atol=1e-3)
    ids = [result['id'] for result in content['annotations']]
    assert ids == [*range(1, len(ids) + 1)]


def test_predict_with_a_threshold_per_class(
    trained, photos, tmp_path, call_tool
):
    everything = predict(
        trained[0], [str(photos / 'a.png')], tmp_path / 'all', score_thr=0
    )
    scores = {
        label + 1: [
            result['score']
            for result in everything['annotations']
            if result['category_id'] == label + 1
        ]
        for label in range(C)
    }
    # Half of the detections of each class.
    middle = [float(np.median(s)) if s else 1.0 for s in scores.values()]
    ScoreThresholds(
        CLASS_NAMES, np.array(middle), np.zeros(C, int), np.zeros(C, bool)
    ).save(tmp_path / 'thresholds.json')
    outcome = call_tool(
        *('predict.py', trained[0], photos / '*.png', '--no-pictures'),
        *('--thresholds', 'thresholds.json', '--out', 'found'),
    )
    assert outcome.returncode == 0, outcome.stderr
    content = json.loads((tmp_path / 'found/predictions.json').read_text())
    assert [*(tmp_path / 'found').iterdir()] == [
        tmp_path / 'found/predictions.json'
    ]
    found = sorted(result['score'] for result in content['annotations'])
    expected = sorted(
        score
        for values, limit in zip(scores.values(), middle)
        for score in values
        if score >= limit - 1e-6
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert len(found) < len(everything['annotations'])


def test_predict_names_files_below_their_common_folder(
    trained, photos, tmp_path, monkeypatch
):
    """Whatever the path says, such as ../photos: out is never left."""
    (photos / 'deep' / 'b.png').write_bytes((photos / 'a.png').read_bytes())
    before = (photos / 'a.png').read_bytes()
    monkeypatch.chdir(photos / 'deep')
    sources = ['../deep/../a.png', str(photos / 'a.png'), 'b.png']
    content = predict(trained[0], sources, tmp_path / 'found')
    names = [image['file_name'] for image in content['images']]
    assert names == ['a.png', 'deep/b.png']
    assert all((tmp_path / 'found/pictures' / n).is_file() for n in names)
    assert (photos / 'a.png').read_bytes() == before


def test_predict_without_a_validation(trained, photos, tmp_path):
    saved = torch.load(trained[0], map_location='cpu', weights_only=True)
    config = Config.fromstring(saved['meta']['cfg'], '.py')
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    saved['meta']['cfg'] = config.pretty_text
    torch.save(saved, tmp_path / 'detector.pth')
    images = [str(photos / 'a.png')]
    found = predict(tmp_path / 'detector.pth', images, tmp_path / 'found')
    assert len(found['images']) == 1
    config.test_dataloader = None
    saved['meta']['cfg'] = config.pretty_text
    torch.save(saved, tmp_path / 'detector.pth')
    with pytest.raises(LongTailError, match='no val_dataloader'):
        predict(tmp_path / 'detector.pth', images, tmp_path / 'other')


@pytest.mark.parametrize(
    'images, options, words',
    [
        (['photos/notes.md'], [], 'notes.md: no such image'),
        (['photos/*.jpg'], [], 'no such image, expected a file, a folder'),
        (['photos'], ['--score-thr', 2], '--score-thr is 2.0'),
        (['photos'], ['--thresholds', 'no.json'], 'no.json: no such file'),
        (['photos/notes.txt'], [], 'notes.txt: not an image'),
    ],
)
def test_predict_mistakes(trained, photos, call_tool, images, options, words):
    arguments = (trained[0], *images, '--out', 'found', *options)
    outcome = call_tool('predict.py', *arguments)
    assert words in refused(outcome)


def test_score_thresholds_of_a_checkpoint(trained, tmp_path, call_tool):
    data = make_data(tmp_path / 'data')
    outcome = call_tool(
        *('analysis_tools/score_thresholds.py', trained[0]),
        *('--ann', data / 'val.json', '--images', data / 'images'),
        *('--out', 'thresholds.json', '--min-objects', 1, '--iou-thr', 0.05),
    )
    if outcome.returncode:  # A detector of a few steps may find nothing.
        assert 'none of its' in refused(outcome)
        return
    assert 'next: longtail predict' in outcome.stdout
    chosen = ScoreThresholds.load(tmp_path / 'thresholds.json')
    assert chosen.class_names == CLASS_NAMES


def test_a_process_that_only_has_the_checkpoint(trained, model):
    program = (
        'import sys, json, mmdet_longtail\n'
        'from mmdet.apis import DetInferencer\n'
        'inferencer = DetInferencer(weights=sys.argv[1], device="cpu")\n'
        'answer = inferencer(sys.argv[2], no_save_vis=True)\n'
        'print(json.dumps(answer["predictions"][0]["scores"]))\n'
    )
    done = subprocess.run(
        [sys.executable, '-c', program, *trained[:2]],
        capture_output=True,
        text=True,
        cwd=Path(trained[0]).parent,
    )
    assert done.returncode == 0, done.stderr
    expected = inference_detector(model, trained[1]).pred_instances
    np.testing.assert_allclose(
        json.loads(done.stdout.splitlines()[-1]), expected.scores, rtol=1e-6
    )
