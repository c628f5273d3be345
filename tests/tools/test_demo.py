"""The report and the demo, on detectors and data of a few seconds."""

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress

import pytest
from tiny import write_config
from tool_runs import (  # noqa: F401
    call_tool,
    command,
    environment,
    run_process,
    run_tool,
)

from mmdet_longtail.testing.glyphs import GlyphSettings, make_glyphs

C = 6
WAIT_HOOK = """
import pathlib
import time
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class WaitHook(Hook):
    def after_train_epoch(self, runner):
        pathlib.Path('waiting').touch()
        while not pathlib.Path('go').exists():
            time.sleep(0.05)
"""
SOFTMAX = """
_base_ = 'tiny.py'
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
train_dataloader = dict(dataset=dict(ann_file='annotations/train.json'))
val_dataloader = dict(dataset=dict(ann_file='annotations/val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='FrequencyGroupMetric',
    ann_file='data/glyphs/annotations/val.json')
test_evaluator = val_evaluator
"""
WAITING = """
_base_ = 'softmax.py'
custom_imports = dict(imports=['mmdet_longtail', 'wait_hook'])
custom_hooks = [dict(type='WaitHook', priority='LOWEST')]
train_cfg = dict(max_epochs=2)
"""
SECOND_STAGE = """
_base_ = 'softmax.py'
base_config = 'waiting.py'
default_hooks = dict(train_only=dict(
    type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='{}', num_classes=6, {}))))
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Glyphs, and configs of detectors; one waits after its first epoch."""
    folder = tmp_path_factory.mktemp('project')
    data = folder / 'data' / 'glyphs'
    make_glyphs(data, GlyphSettings(C, 30, 64, 12.0), num_processes=1)
    write_config(folder / 'tiny.py', data, C)
    (folder / 'softmax.py').write_text(SOFTMAX)
    (folder / 'wait_hook.py').write_text(WAIT_HOOK)
    (folder / 'waiting.py').write_text(WAITING)
    for name, loss, arguments in (
        ('eql', 'EqualizationLoss', 'tail_ratio=0.2'),
        ('bags', 'BalancedGroupSoftmaxLoss', 'bin_edges=(10, 30)'),
    ):
        text = SECOND_STAGE.format(loss, arguments)
        (folder / f'{name}.py').write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONPATH', str(folder), prepend=os.pathsep)
        yield folder


def demo_command(*arguments, softmax='waiting.py'):
    configs = (softmax, 'eql.py', 'bags.py')
    return command('demo.py', *arguments, '--configs', *configs)


def titles(page, text):
    return re.findall(f'<title>([^<]*{text}[^<]*)</title>', page)


def test_demo_is_interrupted_goes_on_and_is_not_done_twice(project):
    process = subprocess.Popen(
        demo_command(),
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 600
        while not (project / 'waiting').exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.terminate()
        out, _ = process.communicate(timeout=600)
    finally:
        with suppress(ProcessLookupError):  # none is left, as it should be
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, out
    assert 'the same command resumes' in out
    assert not (project / 'work_dirs/waiting/metrics.json').exists()

    (project / 'go').touch()
    done = run_process(demo_command(), project)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (project / 'work_dirs/waiting/log.txt').read_text()
    assert 'resumed epoch: 1' in log
    expected = json.loads(
        (project / 'work_dirs/bags/metrics.json').read_text()
    )['frequency_group/bbox_AP']
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ['BAGS', f'{100 * expected:.1f}'] in [row[:2] for row in rows]
    assert str(project / 'work_dirs/report.html') in done.stdout.replace(
        '\n', ''
    )
    for name in ('eql', 'bags'):
        log = (project / f'work_dirs/{name}/log.txt').read_text()
        assert 'waiting/epoch_2.pth' in log

    logs = sorted(project.glob('work_dirs/*/log.txt'))
    before = [log.read_text() for log in logs]
    again = run_process(demo_command(), project)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count('finished before') == 3
    assert [log.read_text() for log in logs] == before


def test_a_failing_step_shows_its_last_lines_and_its_log(project, tmp_path):
    data = project / 'data' / 'glyphs'
    write_config(tmp_path / 'tiny.py', data, C + 1)
    for name in ('softmax.py', 'eql.py', 'bags.py'):
        (tmp_path / name).write_text(SOFTMAX)
    arguments = demo_command('--data-root', data, softmax='softmax.py')
    done = run_process(arguments, tmp_path)
    assert done.returncode == 1
    assert 'num_classes is 7, but the dataset has 6' in done.stderr
    assert 'training of softmax failed' in done.stderr
    assert str(tmp_path / 'work_dirs/softmax/log.txt') in done.stderr
    assert 'Traceback' not in done.stderr


def test_report_is_complete_and_stands_alone(project):
    run_tool(
        'train.py', 'softmax.py', '--work-dir', 'two/softmax', cwd=project
    )
    run_tool(
        'train.py',
        'bags.py',
        '--work-dir',
        'two/bags',
        '--cfg-options',
        'load_from=two/softmax/epoch_1.pth',
        cwd=project,
    )
    run_tool(
        'analysis_tools/report.py',
        'two/softmax',
        'two/bags/epoch_1.pth',
        '--out',
        'pages/two.html',
        cwd=project,
    )
    page = (project / 'pages' / 'two.html').read_text()
    assert 'http' not in page
    assert '<script' not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert 'data:image/jpeg;base64,' in page
    val = json.loads(
        (project / 'data/glyphs/annotations/val.json').read_text()
    )
    for name in ('softmax', 'bags'):
        assert len(titles(page, f', {name}: AP ')) == C
        assert len(titles(page, f', {name}: norm ')) == C
        assert len(titles(page, f', {name}: mean ')) == C
        metrics = json.loads(
            (project / f'two/{name}/metrics.json').read_text()
        )
        for key in ('AP', 'AP50', 'APr', 'APc'):
            value = metrics[f'frequency_group/bbox_{key}']
            assert f'>{100 * value:.1f}</td>' in page
    assert page.count('minus softmax') == 1
    # AP and the three groups, as far as they have objects.
    assert 3 <= len(re.findall(r'<small>[+−][\d.]+ to ', page)) <= 4
    for category in val['categories']:
        name = re.escape(category['name'].replace('_', ' '))
        count = category['image_count']
        assert titles(page, rf'{name} \(image_count {count}\)')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['nowhere'], 'nowhere: no such checkpoint'),
        (['.'], 'no training wrote a checkpoint here'),
        (['a', 'b', '--names', 'x'], 'expected 2 different names'),
    ],
)
def test_report_says_what_is_wrong(
    project,
    call_tool,  # noqa: F811
    arguments,
    message,
):
    done = call_tool('analysis_tools/report.py', *arguments, cwd=project)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and message in done.stderr
    assert done.stderr.count('\n') == 1
