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
