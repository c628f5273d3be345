"""The benchmarks run, and what they compare gives the same."""

import json

import pytest
from tool_runs import run_tool


def measured(tmp_path, tool, *options):
    path = tmp_path / 'figures.json'
    run_tool(tool, *options, '--json', path, cwd=tmp_path)
    return json.loads(path.read_text())


def test_losses(tmp_path):
    figures = measured(
        tmp_path,
        'benchmarks/losses.py',
        *('--rows', 8, '--classes', 20, '--repeats', 2),
    )
    losses = {row['loss'] for row in figures}
    assert {'torch cross_entropy', 'EQL', 'BAGS'} < losses
    for row in figures:
        assert row['forward + backward'] > 0


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_metric(tmp_path, iou_type):
    figures = measured(
        tmp_path,
        'benchmarks/metric.py',
        *('--images', 3, '--size', 64, 48, '--iou-type', iou_type),
        *('--only', 'mmdet', 'fast'),
    )
    mmdet, fast = figures
    # mmdet rounds to three digits.
    assert fast['AP'] == pytest.approx(mmdet['AP'], abs=6e-4)
    assert fast['AP'] > 0


def test_nms(tmp_path):
    figures = measured(
        tmp_path,
        'benchmarks/nms.py',
        *('--classes', 12, '--rois', 40, '--images', 1),
        *('--repeats', 1, '--max-per-img', 20),
    )
    assert {row['boxes'] for row in figures} > {'random', 'clustered'}
    for row in figures:
        assert row['differ'] == 0


def test_samplers(tmp_path):
    figures = measured(
        tmp_path,
        'benchmarks/samplers.py',
        *('--images', 60, '--repeats', 1),
    )
    names = {row[''] for row in figures}
    assert {'get_cat_ids', 'RepeatFactorSampler', 'counting'} < names
