"""tools/check.py: the exit status, and that ablate.py trains nothing wrong."""

import json

import pytest
from tiny import write_two_stages


@pytest.fixture
def project(tmp_path):
    return write_two_stages(tmp_path)


def reverse_categories(path):
    content = json.loads(path.read_text())
    content['categories'].reverse()
    path.write_text(json.dumps(content))


def test_exit_status(project, call_tool):
    outcome = call_tool('check.py', 'softmax.py', cwd=project)
    assert outcome.returncode == 0, outcome.stderr
    rough = ('--cfg-options', 'model.test_cfg.rcnn.score_thr=0.5')
    stage = ('bags.py', *rough, 'load_from=None')
    assert call_tool('check.py', *stage, cwd=project).returncode == 0
    strict = call_tool('check.py', *stage, '--strict', cwd=project)
    assert strict.returncode == 1
    assert 'warning: model.test_cfg.rcnn.score_thr' in strict.stdout
    reverse_categories(project / 'data' / 'val.json')
    broken = call_tool('check.py', 'softmax.py', cwd=project)
    assert broken.returncode == 2
    assert broken.stdout.startswith('error: val_dataloader: class 0 ')


def test_sweep_with_a_broken_config_trains_nothing(project, call_tool):
    reverse_categories(project / 'data' / 'val.json')
    outcome = call_tool('ablate.py', 'softmax.py', cwd=project)
    assert outcome.returncode == 1
    assert 'error: softmax: val_dataloader: class 0 ' in outcome.stderr
    assert not [*project.glob('work_dirs/**/*.pth')]
