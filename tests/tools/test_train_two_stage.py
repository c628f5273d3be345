"""tools/train_two_stage.py: whole runs, through kills and mistakes."""

import copy
import json
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress

import pytest
import torch
from mmengine.config import Config
from tiny import make_data, write_config
from tool_runs import command, environment, run_process, run_tool

from mmdet_longtail.apis import two_stage
from mmdet_longtail.apis.processes import exclusive
from mmdet_longtail.errors import LongTailError

WAIT_HOOK = """
import pathlib
import time
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class WaitHook(Hook):
    def __init__(self, name):
        self.name = name

    def after_train_epoch(self, runner):
        pathlib.Path(f'waiting_{self.name}').touch()
        while not pathlib.Path(f'go_{self.name}').exists():
            time.sleep(0.05)
"""
BASE = """
_base_ = 'softmax.py'
custom_imports = dict(imports=['mmdet_longtail', 'wait_hook'])
custom_hooks = [dict(type='WaitHook', name='base', priority='LOWEST')]
train_cfg = dict(max_epochs=2)
"""
STAGE = """
_base_ = 'softmax.py'
base_config = '{base}'
default_hooks = dict(
    class_statistics=dict(type='ClassStatisticsHook'),
    train_only=dict(
        type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=4,
    bin_edges=(2, 3)))),
    test_cfg=dict(rcnn=dict(max_per_img=2)))
val_evaluator = dict(type='FrequencyGroupMetric')
test_evaluator = val_evaluator
"""
WAITING_STAGE = (
    STAGE.format(base='base.py')
    + """
custom_imports = dict(imports=['mmdet_longtail', 'wait_hook'])
custom_hooks = [dict(type='WaitHook', name='stage', priority='LOWEST')]
train_cfg = dict(max_epochs=2)
"""
)
STEPS = ['base', 'conversion', 'classifier', 'evaluation']


def write_project(folder, class_names=('disc', 'square', 'ring', 'cross')):
    data = make_data(folder / 'data', class_names=class_names)
    write_config(folder / 'softmax.py', data, len(class_names))
    (folder / 'bags.py').write_text(STAGE.format(base='softmax.py'))
    return folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A plain mmdet run: CocoMetric, no statistics."""
    folder = write_project(tmp_path_factory.mktemp('plain'))
    run_tool('train.py', 'softmax.py', '--work-dir', 'run', cwd=folder)
    return folder


@pytest.fixture
def call(call_tool, monkeypatch):
    """Run the tool in this process; its children are real."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)
    for key, value in environment().items():
        monkeypatch.setenv(key, value)

    def call_it(*args, cwd):
        return call_tool(
            'train_two_stage.py', '--work-dir', 'two', *args, cwd=cwd
        )

    return call_it


@pytest.fixture
def refuse(call, trained):
    """Expect a refusal, and give its line."""

    def call_it(*args, cwd=trained):
        process = call(*args, cwd=cwd)
        assert process.returncode == 1, process.stdout
        assert 'Traceback' not in process.stderr
        assert process.stderr.startswith('error: '), process.stderr
        assert process.stderr.count('\n') == 1
        return process.stderr

    return call_it


def contents(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob('*')
        if path.is_file() and path.name != '.lock'
    }


def read_result(folder, name='bags'):
    text = (folder / 'two' / name / 'before_after.json').read_text()
    return json.loads(text)


# -- kills -------------------------------------------------------------------


def killed(arguments, folder, is_there):
    """Start the tool, and kill it alone as soon as something is there."""
    with open(folder / 'out.txt', 'w') as out:
        process = subprocess.Popen(
            command('train_two_stage.py', *arguments),
            cwd=folder,
            env=environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 300
        while not is_there((folder / 'out.txt').read_text()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
        process.wait()
        while is_locked(folder / 'two'):  # Its child ends with it.
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def let_wait(folder, monkeypatch):
    """Give this process and its children the hook that waits."""
    (folder / 'wait_hook.py').write_text(WAIT_HOOK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv('PYTHONPATH', str(folder), prepend=os.pathsep)


def is_locked(work_dir):
    try:
        with exclusive(work_dir):
            return False
    except LongTailError:
        return True


@pytest.mark.slow
def test_goes_on_after_a_kill_in_every_step(tmp_path, call, monkeypatch):
    folder = write_project(tmp_path)
    (folder / 'base.py').write_text(BASE)
    (folder / 'bags.py').write_text(WAITING_STAGE)
    let_wait(folder, monkeypatch)
    arguments = ('bags.py', '--work-dir', 'two', '--seed', 3)
    base, stage = folder / 'two' / 'base', folder / 'two' / 'bags'

    killed(arguments, folder, lambda out: (folder / 'waiting_base').exists())
    assert (base / 'last_checkpoint').exists()
    (folder / 'go_base').touch()
    killed(arguments, folder, lambda out: '[2/4]' in out)
    assert 'resumed epoch: 1' in (base / 'log.txt').read_text()
    assert not (stage / 'start.json').exists()
    killed(arguments, folder, lambda out: (folder / 'waiting_stage').exists())
    (folder / 'go_stage').touch()
    killed(arguments, folder, lambda out: '[4/4]' in out)
    log = (stage / 'log.txt').read_text()
    assert 'resumed epoch: 1' in log
    assert 'two/bags/start.pth' in log
    assert not (stage / 'before_after.json').exists()

    done = run_process(command('train_two_stage.py', *arguments), folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('finished before') == 3
    result = read_result(folder)
    rows = [line.split() for line in done.stdout.splitlines()]
    for name in ('AP', 'APr'):
        pair = result['metrics'][f'frequency_group/bbox_{name}']
        assert pair['after'] == pytest.approx(
            json.loads((stage / 'metrics.json').read_text())[
                f'frequency_group/bbox_{name}'
            ]
        )
        before, after = (100 * pair[key] for key in ('before', 'after'))
        cells = [f'{before:.1f}', f'{after:.1f}', f'{after - before:+.1f}']
        assert any(row[:5] == ['bbox', name, *cells] for row in rows)
    assert [*result['seconds']] == STEPS
    assert result['checkpoint'] == 'two/bags/epoch_2.pth'
    states = [
        torch.load(folder / 'two' / name / 'epoch_2.pth')['state_dict']
        for name in ('base', 'bags')
    ]
    for name, weight in states[0].items():
        if 'fc_cls' not in name:
            assert torch.equal(weight, states[1][name]), name
    assert Config.fromfile(
        folder / 'two' / 'configs' / 'base.py'
    ).randomness == {'seed': 3}

    before = contents(folder / 'two')
    again = call('bags.py', '--seed', 3, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count('finished before') == 4
    assert contents(folder / 'two') == before

    for changed, expected in [
        ((), 'two/base was started with another config'),
        (('--seed', 3, '--base-checkpoint', 'two/bags'), 'with the base two/'),
    ]:
        other = call('bags.py', *changed, cwd=folder)
        assert other.returncode == 1
        assert expected in other.stderr
        assert '--work-dir' in other.stderr
    assert contents(folder / 'two') == before


# -- a checkpoint of one's own -----------------------------------------------


def test_checkpoint_of_a_plain_run(trained, call, monkeypatch):
    """Its second stage is killed too."""
    text = WAITING_STAGE.replace('base.py', 'softmax.py')
    (trained / 'waiting.py').write_text(text)
    let_wait(trained, monkeypatch)
    arguments = ('waiting.py', '--base-checkpoint', 'run')
    killed(
        (*arguments, '--work-dir', 'two'),
        trained,
        lambda out: (trained / 'waiting_stage').exists(),
    )
    out = (trained / 'out.txt').read_text()
    assert 'given, run/epoch_1.pth' in out
    assert 'fc_cls: 5 columns of CrossEntropyLoss -> 9' in out
    assert 'mim train mmdet two/configs/waiting.py --work-dir two/wai' in out

    (trained / 'go_stage').touch()
    done = call(*arguments, cwd=trained)
    assert done.returncode == 0, done.stdout + done.stderr
    log = (trained / 'two' / 'waiting' / 'log.txt').read_text()
    assert 'resumed epoch: 1' in log
    result = read_result(trained, 'waiting')
    for name in ('AP', 'APr', 'APf'):
        pair = result['metrics'][f'frequency_group/bbox_{name}']
        assert {*pair} == {'before', 'after'}
        assert None not in pair.values()
    assert result['seconds']['base'] is None
    assert 'frequency_group/bbox_AP' in result['intervals']
    assert 'its interval' in done.stdout
    assert result['rare_objects']['all'] > 0
    # Both are evaluated with the test_cfg of the second stage: 2 per image.
    for name in ('before', 'after'):
        path = trained / 'two' / 'waiting' / f'{name}.bbox.json'
        images = [found['image_id'] for found in json.loads(path.read_text())]
        assert max(Counter(images).values()) == 2

    before = contents(trained / 'two')
    again = call(*arguments, cwd=trained)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count('finished before') == 3
    assert contents(trained / 'two') == before


@pytest.mark.slow
def test_two_processes(tmp_path, call):
    folder = write_project(tmp_path)
    done = call('bags.py', '--nproc-per-node', 2, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {*read_result(folder)['seconds']} == {*STEPS}


def test_cached_second_stage(trained, call):
    done = call(
        *('--work-dir', 'cached', '--base-checkpoint', 'run', '--cached'),
        *('bags.py', '--cfg-options'),
        'default_hooks.feature_cache.dtype=float16',
        cwd=trained,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = (trained / 'cached' / 'bags' / 'log.txt').read_text()
    assert log.count('Features are written to') == 2
    config = Config.fromfile(trained / 'cached' / 'configs' / 'bags.py')
    assert config.default_hooks.feature_cache == dict(
        type='FeatureCacheHook', dtype='float16'
    )
    result = json.loads(
        (trained / 'cached' / 'bags' / 'before_after.json').read_text()
    )
    assert None not in result['metrics']['frequency_group/bbox_AP'].values()


# -- what it refuses ---------------------------------------------------------


def test_cached_needs_frozen_layers(refuse, trained):
    text = STAGE.format(base='softmax.py').replace('TrainOnlyHook', 'EMAHook')
    text = text.replace(", trainable=['roi_head.bbox_head.fc_cls']", '')
    (trained / 'whole.py').write_text(text)
    assert 'whole.py: --cached: freezes no' in refuse('whole.py', '--cached')


def test_configs_that_are_not_two_stages(refuse, trained):
    assert 'no CONFIG' in refuse()
    assert 'no.py: no such config' in refuse('no.py')
    assert 'softmax.py: no base_config' in refuse('softmax.py')
    (trained / 'lost.py').write_text(STAGE.format(base='gone.py'))
    line = refuse('lost.py')
    assert 'lost.py: base_config: gone.py: no such config' in line
    (trained / 'self.py').write_text(STAGE.format(base='self.py'))
    assert 'has the name of its base_config' in refuse('self.py')


def test_files_that_are_not_checkpoints(refuse, trained):
    base = ('bags.py', '--base-checkpoint')
    assert 'no.pth: no such checkpoint' in refuse(*base, 'no.pth')
    whole = (trained / 'run' / 'epoch_1.pth').read_bytes()
    (trained / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    assert 'cut.pth: not a checkpoint' in refuse(*base, 'cut.pth')
    (trained / 'empty').mkdir()
    line = refuse(*base, 'empty')
    assert 'empty: no training wrote a checkpoint here' in line
    address = 'http://127.0.0.1:9/no.pth'
    assert f'{address}: not a checkpoint' in refuse(*base, address)


def saved(trained, name, change):
    checkpoint = torch.load(trained / 'run' / 'epoch_1.pth')
    change(checkpoint)
    torch.save(checkpoint, trained / name)
    return name


def test_checkpoints_that_do_not_fit(refuse, trained):
    def without_config(checkpoint):
        del checkpoint['meta']['cfg']

    path = saved(trained, 'bare.pth', without_config)
    line = refuse('--base-checkpoint', path)
    assert 'bare.pth: contains no config (meta.cfg)' in line
    assert 'give CONFIG' in line

    def hostile(checkpoint):
        checkpoint['meta']['cfg'] += "\nopen('proof', 'w')\n"

    path = saved(trained, 'hostile.pth', hostile)
    line = refuse('--base-checkpoint', path)
    assert 'hostile.pth: the config' in line and '--trust-config' in line
    assert not list(trained.rglob('proof'))

    def moved(checkpoint):
        text = checkpoint['meta']['cfg'].replace(str(trained), '/nowhere')
        checkpoint['meta']['cfg'] = text

    line = refuse('--base-checkpoint', saved(trained, 'moved.pth', moved))
    assert '/nowhere/data/train.json' in line

    def renamed(checkpoint):
        names = ('disc', 'square', 'ring', 'star')
        checkpoint['meta']['dataset_meta']['classes'] = names

    def shortened(checkpoint):
        checkpoint['meta']['dataset_meta']['classes'] = ('disc', 'square')

    def unnamed(checkpoint):
        del checkpoint['meta']['dataset_meta']
        for key in ('weight', 'bias'):
            name = f'roi_head.bbox_head.fc_cls.{key}'
            state = checkpoint['state_dict']
            state[name] = state[name][:3].clone()

    for change, expected in [
        (renamed, "'star'"),
        (shortened, '2'),
        (unnamed, 'fc_cls has 3 columns'),
    ]:
        path = saved(trained, f'{change.__name__}.pth', change)
        line = refuse(
            *('bags.py', '--base-checkpoint', path, '--work-dir', 'bad')
        )
        assert path in line and expected in line


WIDE = """
_base_ = 'softmax.py'
model = dict(
    backbone=dict(base_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128]))
"""
MASK = """
_base_ = 'bags.py'
base_config = 'softmax.py'
model = dict(roi_head=dict(
    mask_roi_extractor=_base_.model.roi_head.bbox_roi_extractor,
    mask_head=dict(type='FCNMaskHead', in_channels=16, num_classes=4)))
"""


def test_layers_that_differ_are_an_error_before_any_training(refuse, trained):
    (trained / 'wide.py').write_text(WIDE)
    (trained / 'narrow.py').write_text(STAGE.format(base='wide.py'))
    line = refuse('narrow.py', '--work-dir', 'narrow')
    assert 'backbone.conv1.weight is (16' in line and '(8' in line
    (trained / 'mask.py').write_text(MASK)
    line = refuse('mask.py', '--work-dir', 'mask')
    assert 'frozen' in line and 'roi_head.mask_head' in line

    def widened(checkpoint):
        weights = checkpoint['state_dict']
        weights['backbone.conv1.weight'] = torch.zeros(16, 3, 7, 7)

    def lost(checkpoint):
        del checkpoint['state_dict']['neck.fpn_convs.0.conv.weight']

    def diverged(checkpoint):
        checkpoint['state_dict']['backbone.conv1.weight'][0] = float('nan')

    for change, expected in [
        (widened, 'backbone.conv1.weight is (16'),
        (lost, 'neck.fpn_convs.0.conv.weight'),
        (diverged, 'infinite or NaN, the first is backbone.conv1.weight'),
    ]:
        path = saved(trained, f'{change.__name__}.pth', change)
        base = ('--base-checkpoint', path, '--work-dir', change.__name__)
        assert expected in refuse('bags.py', *base)
    folders = ('narrow', 'mask', 'widened', 'lost', 'diverged')
    assert not [p for f in folders for p in (trained / f).rglob('*.pth')]


def test_a_stage_may_train_layers_that_its_base_lacks(trained, monkeypatch):
    monkeypatch.chdir(trained)
    stage = Config.fromfile(trained / 'bags.py')
    names = ['roi_head.bbox_head.fc_cls.weight', 'neck.a.b', 'backbone.a']
    hook = stage.default_hooks.train_only
    assert two_stage._trained_names(stage, names) == {names[0]}
    hook.type = 'mmdet.TrainOnlyHook'
    hook.trainable = ['neck.*']
    assert two_stage._trained_names(stage, names) == {'neck.a.b'}
    del stage.default_hooks.train_only
    assert two_stage._trained_names(stage, names) == {*names}


@pytest.mark.parametrize('split', ['val', 'test'])
def test_both_stages_are_tested_alike(trained, monkeypatch, split):
    monkeypatch.chdir(trained)
    base, stage = (
        Config.fromfile(trained / f'{name}.py') for name in ('softmax', 'bags')
    )
    base.model.test_cfg.rcnn.update(score_thr=0.05, max_per_img=100)
    stage.model.test_cfg.rcnn.update(score_thr=1e-4, max_per_img=300)
    stage.test_dataloader = dict(stage.test_dataloader, batch_size=3)
    if split == 'test':
        stage.val_cfg = None
    for config in (base, stage):
        tested = two_stage._test_config(config, stage, trained / 's.json')
        assert tested.model.test_cfg == stage.model.test_cfg
        assert tested.test_dataloader == stage[f'{split}_dataloader']
        assert tested.test_evaluator == stage[f'{split}_evaluator']
        assert tested.model.roi_head == config.model.roi_head
    assert base.model.test_cfg.rcnn.max_per_img == 100


def test_a_build_leaves_the_config(trained, monkeypatch):
    """A kept config is compared with that of an interrupted call."""
    monkeypatch.chdir(trained)
    config = Config.fromfile('softmax.py')
    before = copy.deepcopy(config.to_dict())
    assert two_stage._build(config) is not None
    assert config.to_dict() == before


def test_a_failing_child_says_why(refuse, trained):
    text = STAGE.format(base='softmax.py').replace('fc_cls', 'fc_clss')
    (trained / 'typo.py').write_text(text)
    line = refuse('typo.py', '--base-checkpoint', 'run')
    assert 'training of the classifier failed: TrainOnlyHook' in line
    assert "'roi_head.bbox_head.fc_clss' matches no" in line
    assert f'{trained}/two/typo/log.txt' in line


def result_of(low, high, unreached, **more):
    """A result whose differences are all within low to high."""
    pair = {'before': 0.1, 'after': 0.11}
    name = 'frequency_group/bbox_APr'
    ends = {'before': (0, 1), 'after': (0, 1), 'difference': (low, high)}
    return {
        'metrics': {name: pair},
        'seconds': {'base': 1.0},
        'intervals': {name: ends},
        'rare_objects': {'all': 50, 'unreached': unreached},
        **more,
    }


def test_the_likely_reason_where_nothing_differs(capsys):
    two_stage._print_result(result_of(-0.01, 0.03, 45), False)
    out = capsys.readouterr().out
    assert 'No difference is larger than its interval' in out
    assert '90% of the 50 rare objects have no box' in out
    assert 'train the base longer' in out
    two_stage._print_result(result_of(-0.01, 0.03, 5), False)
    out = capsys.readouterr().out
    assert '10% of the 50' in out and 'longer' not in out
    two_stage._print_result(result_of(0.001, 0.03, 45), False)
    out = capsys.readouterr().out
    assert 'No difference' not in out and 'rare objects' not in out
    assert '+0.1 to +3.0' in out


def test_a_stage_that_detects_nothing_is_named(capsys):
    warnings = {'before': 'nothing was detected in 9 images'}
    two_stage._print_result(result_of(0, 0, 50, warnings=warnings), True)
    assert 'before: nothing was detected' in capsys.readouterr().out


def test_a_result_without_intervals(capsys):
    result = result_of(0, 0, 0)
    for key in ('intervals', 'rare_objects'):
        del result[key]
    two_stage._print_result(result, True)
    out = capsys.readouterr().out
    assert 'bbox APr' in out and 'interval' not in out


def test_the_learning_rate_is_searched(call, trained, tmp_path):
    folder = write_project(tmp_path)
    search = ('--search-lr', '0.001', '0.01', '--held-out', '0.5')
    arguments = ('bags.py', '--base-checkpoint', trained / 'run', '--cached')
    process = call(*arguments, *search, cwd=folder)
    assert process.returncode == 0, process.stdout + process.stderr
    result = read_result(folder)
    rate = result['learning_rate']
    assert rate in (0.001, 0.01)
    assert result['seconds']['search'] > 0
    assert f'The learning rate is {rate:g}, the best' in process.stdout
    checkpoint = torch.load(result['checkpoint'], weights_only=True)
    (group,) = checkpoint['optimizer']['param_groups']
    assert group['lr'] == rate

    before = contents(folder)
    again = call(*arguments, *search, cwd=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert contents(folder) == before
    for changed in ((), (*search[:2], *search[3:])):
        process = call(*arguments, *changed, cwd=folder)
        assert process.returncode == 1
        assert 'was started with another --search-lr' in process.stderr
    process = call(
        *arguments, *search, '--nproc-per-node', 2, cwd=tmp_path / 'data'
    )
    assert process.returncode == 1
    assert 'its trainings have one process' in process.stderr
