"""The tools, and detection from Python, on a GPU."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from mmdet.apis import DetInferencer
from tiny import CLASS_NAMES, write_two_stages
from tool_runs import run_tool

from mmdet_longtail.structures import Checkpoint

SOFTMAX = 'work_dirs/softmax/epoch_1.pth'


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A softmax detector and its classifier stage, BAGS, after an epoch."""
    folder = write_two_stages(tmp_path_factory.mktemp('project'))
    run_tool('train.py', 'softmax.py', cwd=folder)
    run_tool('train.py', 'bags.py', '--work-dir', 'bags', cwd=folder)
    return folder


def test_the_classifier_stage_trains_the_classifier_only(project, device):
    before = Checkpoint.load(project / SOFTMAX).weights
    after = Checkpoint.load(project / 'bags/epoch_1.pth').weights
    shared = [name for name in before if 'loss_cls' not in name]
    changed = {
        name
        for name in shared
        if before[name].shape != after[name].shape
        or not torch.equal(before[name].cpu(), after[name].cpu())
    }
    assert {name.split('.')[2] for name in changed} == {'fc_cls'}


def test_test_detects_what_an_inferencer_detects(project, device, tmp_path):
    checkpoint = project / 'bags/epoch_1.pth'
    out = tmp_path / 'found'
    run_tool('test.py', 'bags.py', checkpoint, '--out', out, cwd=project)
    tested = json.loads(out.with_suffix('.bbox.json').read_text())
    inferencer = DetInferencer(weights=str(checkpoint), device=device)
    assert next(inferencer.model.parameters()).device.type == device
    image = project / 'data/images/val_0.png'
    answer = inferencer(str(image), no_save_vis=True, pred_score_thr=0.0)
    scores = sorted(answer['predictions'][0]['scores'])
    expected = sorted(d['score'] for d in tested if d['image_id'] == 1)
    assert len(scores) > 0
    assert scores == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_analysis_of_two_classifiers(project, device, tmp_path):
    run_tool(
        'analysis_tools/analyze_classifier.py',
        *('softmax.py', SOFTMAX, 'bags/epoch_1.pth'),
        *('--names', 'softmax', 'BAGS', '--out', tmp_path),
        cwd=project,
    )
    with open(tmp_path / 'classifier.csv') as table:
        assert len(list(csv.DictReader(table))) == 2 * len(CLASS_NAMES)


def test_an_edited_classifier_is_tested(project, device, tmp_path):
    out = tmp_path / 'calibrated.pth'
    run_tool(
        'model_converters/edit_classifier.py',
        *('calibrate', 'softmax.py', SOFTMAX, out, '--method', 'logn'),
        cwd=project,
    )
    run_tool('test.py', out.with_suffix('.py'), out, cwd=project)
