"""tools/train.py and tools/test.py in real runs, and what they refuse."""

import json
import shutil
import sys

import mmdet
import pytest
import torch
from tiny import make_data, write_config
from tool_runs import refused, run_process, run_tool

from mmdet_longtail.apis import test as api
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.class_statistics import ClassStatistics

HOOK = """
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
"""
EQL = """
_base_ = 'softmax.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='EqualizationLoss', num_classes=4))))
"""
BAGS = """
_base_ = 'softmax.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=4,
    bin_edges=(2, 3)))))
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A dataset, configs, and a softmax detector trained for one epoch."""
    folder = tmp_path_factory.mktemp('project')
    make_data(folder / 'data')
    write_config(folder / 'softmax.py', folder / 'data')
    (folder / 'eql.py').write_text(EQL + HOOK)
    (folder / 'bags.py').write_text(BAGS + HOOK)
    (folder / 'no_hook.py').write_text(EQL)
    run_tool('train.py', 'softmax.py', cwd=folder)
    return folder


@pytest.fixture
def copy(project, tmp_path):
    """A copy of the project that a test may break."""
    folder = tmp_path / 'project'
    shutil.copytree(project, folder)
    write_config(folder / 'softmax.py', folder / 'data')
    return folder


def logged(work_dir):
    """The text of all logs of a work directory, oldest first."""
    return ''.join(
        path.read_text() for path in sorted(work_dir.glob('*/*.log'))
    )


def test_train_keeps_the_results_of_the_last_validation(project):
    work_dir = project / 'work_dirs' / 'softmax'
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    assert (work_dir / 'epoch_1.pth').is_file()


def test_test_writes_detections_and_pictures(project, tmp_path):
    process = run_tool(
        'test.py',
        'softmax.py',
        'work_dirs/softmax/epoch_1.pth',
        *('--work-dir', tmp_path / 'tested'),
        *('--out', tmp_path / 'found' / 'all'),
        *('--show-dir', 'painted'),
        cwd=project,
    )
    found = json.loads((tmp_path / 'found' / 'all.bbox.json').read_text())
    assert {d['image_id'] for d in found} == {1, 2}
    assert {d['category_id'] for d in found} <= {1, 2, 3, 4}
    assert len(list(tmp_path.glob('tested/*/painted/*.png'))) == 2
    [log] = tmp_path.glob('tested/*/*.log')
    assert 'Config:' in log.read_text()
    assert 'Config:' not in process.stdout
    assert 'coco/bbox_mAP' in process.stdout


def test_python_tests_as_the_tool_does(project, tmp_path):
    arguments = (
        project / 'softmax.py',
        project / 'work_dirs' / 'softmax' / 'epoch_1.pth',
    )
    metrics, evaluations = api.test_detector(*arguments, work_dir=tmp_path)
    trained = json.loads(
        (project / 'work_dirs' / 'softmax' / 'metrics.json').read_text()
    )
    assert metrics == pytest.approx(trained)
    assert evaluations == {}
    with pytest.raises(LongTailError, match='FrequencyGroupMetric and Fixed'):
        api.test_detector(
            *arguments, work_dir=tmp_path, per_class='classes.csv'
        )


def test_mmdet_train_takes_the_same_config(project, tmp_path):
    script = f'{mmdet.__path__[0]}/.mim/tools/train.py'
    process = run_process(
        [sys.executable, script, 'eql.py', '--work-dir', tmp_path], project
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / 'epoch_1.pth').is_file()


def test_resume_goes_on(project, tmp_path, call_tool):
    work_dir = tmp_path / 'run'
    shutil.copytree(project / 'work_dirs' / 'softmax', work_dir)
    arguments = ('train.py', 'softmax.py', '--work-dir', work_dir, '--resume')
    (work_dir / 'metrics.json').unlink()
    # The last epoch is done: only its validation is missing.
    assert call_tool(*arguments, cwd=project).returncode == 0
    assert (work_dir / 'metrics.json').is_file()
    assert not (work_dir / 'epoch_2.pth').exists()
    more = ('--cfg-options', 'train_cfg.max_epochs=2')
    assert call_tool(*arguments, 'auto', *more, cwd=project).returncode == 0
    assert (work_dir / 'epoch_2.pth').is_file()
    assert 'resumed epoch: 1' in logged(work_dir)


def test_resume_with_nothing_to_go_on_from_loads_load_from(
    project,
    tmp_path,
    call_tool,
):
    checkpoint = project / 'work_dirs' / 'softmax' / 'epoch_1.pth'
    process = call_tool(
        'train.py',
        'bags.py',
        *('--work-dir', tmp_path / 'run', '--resume', 'auto'),
        *('--cfg-options', f'load_from={checkpoint}'),
        cwd=project,
    )
    assert process.returncode == 0
    assert f'Load checkpoint from {checkpoint}' in logged(tmp_path / 'run')


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_help_lets_mim_choose_the_device(tool, call_tool):
    process = call_tool(tool, '-h')
    assert process.returncode == 0
    assert '--launcher' in process.stdout
    assert '--gpus' not in process.stdout


# -- bad input ---------------------------------------------------------------


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def truncate(path):
    path.write_text(path.read_text()[:-100])


def drop(key):
    return lambda path: edit(path, lambda content: content.pop(key))


def first_annotation(key, value):
    def change(content):
        content['annotations'][0][key] = value

    return lambda path: edit(path, change)


def duplicate_category(path):
    def change(content):
        content['categories'][1]['id'] = content['categories'][0]['id']

    edit(path, change)


BAD_FILES = {
    'missing': (lambda path: path.unlink(), 'no such file'),
    'truncated': (truncate, 'not valid JSON'),
    'no categories': (drop('categories'), "'categories'"),
    'no annotations': (drop('annotations'), "'annotations'"),
    'unknown category_id': (first_annotation('category_id', 99), '99'),
    'unknown image_id': (first_annotation('image_id', 99), '99'),
    'duplicate category ids': (duplicate_category, 'categories'),
    'zero images': (
        lambda path: edit(path, lambda content: content.update(images=[])),
        "'images'",
    ),
}


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('name', BAD_FILES)
def test_bad_annotation_file(name, split, copy, call_tool):
    damage, expected = BAD_FILES[name]
    path = copy / 'data' / f'{split}.json'
    damage(path)
    if split == 'val':
        (copy / 'eql.py').write_text(
            (copy / 'eql.py').read_text()
            + 'val_evaluator = dict(_delete_=True, '
            f"type='FrequencyGroupMetric', ann_file={str(path)!r})\n"
        )
    line = refused(call_tool('train.py', 'eql.py', cwd=copy))
    assert str(path) in line
    assert expected in line
    assert not list(copy.glob('work_dirs/eql/*.pth'))


LOSS = 'model.roi_head.bbox_head.loss_cls'
BAD_CONFIGS = {
    'num_classes of the head': (
        'softmax.py',
        ['model.roi_head.bbox_head.num_classes=80'],
        ['model.roi_head.bbox_head.num_classes is 80', '4 classes'],
    ),
    'num_classes of the loss': (
        'eql.py',
        [f'{LOSS}.num_classes=80'],
        ['loss_cls', '80', '4'],
    ),
    'statistics of other classes': (
        'eql.py',
        ['default_hooks.class_statistics.class_statistics=other.json'],
        ['class 3', "'cross'", "'star'"],
    ),
    'statistics missing': ('no_hook.py', [], ['ClassStatisticsHook']),
    'bin_edges unsorted': (
        'bags.py',
        [f'{LOSS}.bin_edges=(3,2)'],
        ['bin_edges', '(3, 2)'],
    ),
    'bin_edges empty': ('bags.py', [f'{LOSS}.bin_edges=()'], ['bin_edges']),
    'frequency_threshold': (
        'eql.py',
        [f'{LOSS}.frequency_threshold=1.5'],
        ['frequency_threshold', '1.5'],
    ),
    'others_ratio': (
        'bags.py',
        [f'{LOSS}.others_ratio=-1'],
        ['others_ratio', '-1'],
    ),
    'load_from missing': (
        'softmax.py',
        ['load_from=nowhere.pth'],
        ['nowhere.pth', 'no such checkpoint'],
    ),
    'load_from no checkpoint': (
        'softmax.py',
        ['load_from=softmax.py'],
        ['softmax.py', 'not a checkpoint'],
    ),
    'load_from unfinished': (
        'softmax.py',
        ['load_from=data'],
        ['the training in data is not finished'],
    ),
    'images missing': (
        'softmax.py',
        ['train_dataloader.dataset.data_prefix.img=nowhere/'],
        ['No such file', 'nowhere/train_'],
    ),
    'key below a value': (
        'softmax.py',
        ['model.type.depth=3'],
        ['cfg-options', 'type'],
    ),
}


@pytest.mark.parametrize('name', BAD_CONFIGS)
def test_bad_config(name, project, tmp_path, call_tool):
    config, options, expected = BAD_CONFIGS[name]
    statistics = ClassStatistics(
        ('disc', 'square', 'ring', 'star'), [4] * 4, [4] * 4, 4, 4
    )
    statistics.save(project / 'other.json')
    arguments = ['train.py', config, '--work-dir', tmp_path / 'run']
    if options:
        arguments += ['--cfg-options', *options]
    line = refused(call_tool(*arguments, cwd=project))
    for part in expected:
        assert part in line
    assert not list(tmp_path.glob('run/*.pth'))


def test_a_work_dir_that_cannot_be_written(project, call_tool):
    arguments = ['train.py', 'softmax.py', '--work-dir', 'softmax.py/run']
    line = refused(call_tool(*arguments, cwd=project))
    assert 'the work directory cannot be written' in line


def test_base_config_not_trained(project, tmp_path, call_tool):
    line = refused(
        call_tool(
            'train.py',
            'bags.py',
            *('--cfg-options', 'base_config=softmax.py', 'load_from=no.pth'),
            cwd=project,
        )
    )
    assert 'no.pth' in line
    assert 'softmax.py' in line


@pytest.mark.parametrize('tool', ['train.py', 'test.py'])
def test_config_that_cannot_be_read(tool, tmp_path, call_tool):
    rest = ['x.pth'] if tool == 'test.py' else []
    assert 'no such config' in refused(call_tool(tool, 'no.py', *rest))
    for text, name in [('a = [', 'SyntaxError'), ('a = b', 'NameError')]:
        (tmp_path / 'broken.py').write_text(text)
        line = refused(call_tool(tool, 'broken.py', *rest))
        assert 'broken.py' in line
        assert name in line


def save_list(path):
    torch.save([1, 2], path)


def save_other_layout(path):
    torch.save({'state_dict': {'weight': torch.ones(3)}}, path)


BAD_CHECKPOINTS = {
    'missing': (lambda path: None, 'no such checkpoint'),
    'text': (lambda path: path.write_text('x'), 'not a checkpoint'),
    'no weights': (save_list, 'no weights'),
    'other weights': (save_other_layout, 'such as backbone.conv1.weight'),
}


@pytest.mark.parametrize('name', BAD_CHECKPOINTS)
def test_bad_checkpoint(name, project, tmp_path, call_tool):
    write, expected = BAD_CHECKPOINTS[name]
    path = tmp_path / 'bad.pth'
    write(path)
    line = refused(call_tool('test.py', 'softmax.py', path, cwd=project))
    assert expected in line
    assert str(path) in line


def test_checkpoint_of_another_loss(project, call_tool):
    line = refused(
        call_tool(
            'test.py',
            'bags.py',
            'work_dirs/softmax/epoch_1.pth',
            cwd=project,
        )
    )
    assert 'fc_cls' in line


def test_statistics_missing_at_test(
    project,
    tmp_path,
    call_tool,
):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules()
    model = MODELS.build(Config.fromfile(project / 'bags.py').model)
    weights = dict(model.named_parameters())
    torch.save({'state_dict': weights}, tmp_path / 'bare.pth')
    line = refused(
        call_tool('test.py', 'bags.py', tmp_path / 'bare.pth', cwd=project)
    )
    assert 'statistics' in line


def test_boxes_of_no_size_are_reported(copy, call_tool):
    def change(content):
        content['annotations'][0]['bbox'] = [5, 5, 0, 10]
        content['annotations'][1]['bbox'] = [5, 5, 10, -1]

    edit(copy / 'data' / 'train.json', change)
    assert call_tool('train.py', 'eql.py', cwd=copy).returncode == 0
    assert '2 of 10 (2 no area)' in logged(copy / 'work_dirs' / 'eql')


def test_a_bug_keeps_its_trace(project, call_tool, monkeypatch):
    from mmdet.models.roi_heads import StandardRoIHead

    def loss(*args, **kwargs):
        raise IndexError('a bug')

    monkeypatch.setattr(StandardRoIHead, 'loss', loss)
    with pytest.raises(IndexError, match='a bug'):
        call_tool('train.py', 'softmax.py', cwd=project)
