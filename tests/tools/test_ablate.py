"""tools/ablate.py: the grid, and its runs through kills and failures."""

import csv
import json
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import time

import pytest
import torch
from mmengine.config import Config
from tiny import make_data, write_config
from tool_runs import TOOLS, command, environment, load_tool, run_process

from mmdet_longtail.cli.sweep import (
    Run,
    Sweep,
    in_a_name,
    last_checkpoint_name,
    locate,
    parse_value,
    plan,
)
from mmdet_longtail.errors import LongTailError

ablate = load_tool('ablate.py')

STAGE = """
_base_ = 'softmax.py'
base_config = 'softmax.py'
load_from = 'work_dirs/softmax/epoch_1.pth'
default_hooks = dict(
    class_statistics=dict(type='ClassStatisticsHook'),
    train_only=dict(
        type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=4,
    bin_edges=(2, 3)))))
"""
STAGE_OF_BAGS = "base_config = 'bags.py'\n"
BIN_EDGES = 'model.roi_head.bbox_head.loss_cls.bin_edges'
BATCH_SIZE = 'train_dataloader.batch_size'


@pytest.fixture
def project(tmp_path):
    make_data(tmp_path / 'data')
    write_config(tmp_path / 'softmax.py', tmp_path / 'data')
    (tmp_path / 'bags.py').write_text(STAGE)
    return tmp_path


def run_grid(project, *args):
    return run_process(
        command('ablate.py', *args, '--work-dir', 'grid'), project
    )


def read_csv(project):
    with open(project / 'grid' / 'ablation.csv') as file:
        return list(csv.DictReader(file))


# -- the grid ----------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'value'),
    [
        ('0.06', 0.06),
        ('1e-3', 1e-3),
        ('12', 12),
        ('-1', -1),
        ('None', None),
        ('true', True),
        ('False', False),
        ('softmax', 'softmax'),
        ('data/train.json', 'data/train.json'),
        ('[10,100]', [10, 100]),
        ('(10,100)', (10, 100)),
        ('[a,b]', ['a', 'b']),
        ("{'type': 'X', 'a': [1]}", {'type': 'X', 'a': [1]}),
        ("dict(type='X', b=dict(c=1.5))", {'type': 'X', 'b': {'c': 1.5}}),
        ("[dict(type='X')]", [{'type': 'X'}]),
        ('__import__("os").getcwd()', '__import__("os").getcwd()'),
    ],
)
def test_values(text, value):
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ('value', 'name'),
    [
        (0.06, '0.06'),
        ((10, 100), '10,100'),
        ([10, 100], '10,100'),
        ('a/b c', 'a-bc'),
        ({'type': 'X', 'lambda': 0.1}, 'type-X,lambda-0.1'),
    ],
)
def test_names(value, name):
    assert in_a_name(value) == name


def test_long_names_stay_apart():
    names = {in_a_name({'x': 'y' * 300, 'z': i}) for i in range(2)}
    assert len(names) == 2
    assert all(len(name) < 80 for name in names)


def test_every_method_has_one_seed_before_the_next():
    runs = plan(
        ['a.py', 'x/b.py'],
        [['model.k', '1', '2'], ['lr', '0.1']],
        [0, 7],
    )
    assert [run.name for run in runs] == [
        'a_k=1_lr=0.1_seed=0',
        'a_k=2_lr=0.1_seed=0',
        'b_k=1_lr=0.1_seed=0',
        'b_k=2_lr=0.1_seed=0',
        'a_k=1_lr=0.1_seed=7',
        'a_k=2_lr=0.1_seed=7',
        'b_k=1_lr=0.1_seed=7',
        'b_k=2_lr=0.1_seed=7',
    ]


def test_keys_with_the_same_end_are_spelled_out():
    (run,) = plan(['a.py'], [['x.lr', '1'], ['y.lr', '2']], [0])
    assert run.name == 'a_x.lr=1_y.lr=2_seed=0'


@pytest.mark.parametrize(
    'grid',
    [
        (['a.py', 'x/a.py'], (), [0]),
        (['a.py'], [['k', '1', '1']], [0]),
        (['a.py'], (), [0, 0]),
    ],
)
def test_two_runs_of_one_name_are_refused(grid):
    with pytest.raises(LongTailError, match='two runs are called a_'):
        plan(*grid)


def test_a_key_without_values_is_refused():
    with pytest.raises(LongTailError, match='--set k: no value'):
        plan(['a.py'], [['k']], [0])


@pytest.mark.parametrize(
    'key',
    ['modle.x', 'model.haed.x', 'top', 'model.depth.x', 'model.heads.2.x'],
)
def test_misspelled_keys_are_refused(key):
    config = Config({'model': {'depth': 18, 'heads': [{}, {}]}})
    with pytest.raises(LongTailError, match=re.escape(f'--set {key}:')):
        locate(config, key)


def sweep_in(project):
    return Sweep(project, None, TOOLS / 'train.py')


def test_a_setting_replaces_what_the_config_has(project):
    loss = {'type': 'EqualizationLoss', 'num_classes': 4}
    key = BIN_EDGES.removesuffix('.bin_edges')
    run = Run(str(project / 'bags.py'), ((key, loss),), 3)
    config, _ = sweep_in(project).prepare(run)
    assert config.model.roi_head.bbox_head.loss_cls == loss
    assert config.randomness.seed == 3


def test_the_base_takes_the_settings_that_the_stage_inherits(project):
    sweep = sweep_in(project)
    settings = ((BIN_EDGES, (2, 3)), (BATCH_SIZE, 1))
    run = Run(str(project / 'bags.py'), settings, 3)
    config, base = sweep.prepare(run)
    assert base.name == 'softmax_batch_size=1_seed=3'
    assert config.load_from == str(project / base.name / 'epoch_1.pth')
    assert sweep.prepare(base)[1] is None


def test_bases_come_first_and_once(project):
    (project / 'third.py').write_text("_base_ = 'bags.py'\n" + STAGE_OF_BAGS)
    paths = [str(project / f'{name}.py') for name in ('third', 'bags')]
    settings = [[BIN_EDGES, '(2,3)', '[2]']]
    levels = sweep_in(project).levels(plan(paths, settings, [0]))
    assert [[run.name for run in level] for level in levels] == [
        ['softmax_seed=0'],
        ['bags_bin_edges=2,3_seed=0', 'bags_bin_edges=2_seed=0'],
        ['third_bin_edges=2,3_seed=0', 'third_bin_edges=2_seed=0'],
    ]


def test_runs_without_results_are_refused(project):
    with (project / 'softmax.py').open('a') as file:
        file.write('val_dataloader = val_evaluator = val_cfg = None\n')
    with pytest.raises(LongTailError, match=r'softmax\.py: has no val_cfg'):
        sweep_in(project).levels(plan([str(project / 'softmax.py')], [], [0]))


@pytest.mark.parametrize(
    ('loop', 'checkpoint', 'name'),
    [
        ({'type': 'EpochBasedTrainLoop', 'max_epochs': 5}, {}, 'epoch_5.pth'),
        ({'by_epoch': True, 'max_epochs': 5}, {}, 'epoch_5.pth'),
        ({'max_epochs': 5}, {'interval': 2}, 'epoch_5.pth'),
        (
            {'type': 'mmdet.ResumableIterBasedTrainLoop', 'max_iters': 9},
            {'by_epoch': False},
            'iter_9.pth',
        ),
        ({'max_epochs': 5}, {'by_epoch': False}, None),
        ({'by_epoch': False, 'max_iters': 9}, {}, None),
        ({'max_epochs': 5}, {'save_last': False}, None),
        ({'max_epochs': 5}, {'filename_tmpl': '{}.pth'}, None),
    ],
)
def test_the_last_checkpoint_is_foretold(loop, checkpoint, name):
    config = Config(
        {'train_cfg': loop, 'default_hooks': {'checkpoint': checkpoint}}
    )
    assert last_checkpoint_name(config) == name


# -- the results -------------------------------------------------------------


def results_of(values):
    return {
        Run(config, (), seed): {
            'frequency_group/bbox_AP': value,
            'frequency_group/bbox_AP50': 0.9,
            'frequency_group/bbox_APr': -1,
            'frequency_group/bbox_AP_classes': 4,
        }
        for (config, seed), value in values.items()
    }


def test_summary_is_of_ap_over_all_sizes_and_seeds():
    results = results_of({('a.py', 0): 0.1, ('a.py', 1): 0.3, ('b.py', 0): 0})
    assert ablate.summarise(results, None) == {
        'frequency_group/bbox_AP': {'a': [0.1, 0.3], 'b': [0]},
        'frequency_group/bbox_APr': {'a': [], 'b': []},
    }
    assert [*ablate.summarise(results, ['AP50'])] == [
        'frequency_group/bbox_AP50'
    ]
    with pytest.raises(LongTailError, match='--metric: no result ends with x'):
        ablate.summarise(results, ['x'])


def test_table_and_plot(tmp_path, capsys):
    results = results_of({('a.py', 0): 0.1, ('a.py', 1): 0.3, ('b.py', 0): 0})
    summary = ablate.summarise(results, None)
    ablate.print_table(summary)
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if '|' in line
    ]
    std = statistics.stdev([0.1, 0.3])
    assert rows[0] == ['method', 'bbox_AP', 'bbox_APr', 'seeds']
    assert rows[2] == ['a', f'0.200 ± {std:.3f}', '-', '2']
    assert rows[3] == ['b', '0.000', '-', '1']
    ablate.draw(tmp_path / 'plot.png', summary)
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


# -- the queue, in real runs -------------------------------------------------


@pytest.fixture
def call_grid(project, call_tool, monkeypatch):
    """Run the tool in this process, where it trains nothing."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)

    def call(*args):
        return call_tool('ablate.py', *args, '--work-dir', 'grid', cwd=project)

    return call


def load_checkpoint(project, run):
    path = project / 'grid' / run / 'epoch_1.pth'
    return torch.load(path, weights_only=True)['state_dict']


def test_grid_with_a_second_stage(project, call_grid):
    grid = ('softmax.py', 'bags.py', '--seeds', 0, 1)
    process = run_grid(project, *grid)
    assert process.returncode == 0, process.stdout + process.stderr
    rows = read_csv(project)
    assert [(row['config'], row['seed']) for row in rows] == [
        ('softmax.py', '0'),
        ('bags.py', '0'),
        ('softmax.py', '1'),
        ('bags.py', '1'),
    ]
    assert all(0 <= float(row['coco/bbox_mAP']) <= 1 for row in rows)
    for seed in (0, 1):
        kept = Config.fromfile(
            project / 'grid' / 'configs' / f'bags_seed={seed}.py'
        )
        assert kept.load_from == f'grid/softmax_seed={seed}/epoch_1.pth'
        assert kept.randomness.seed == seed
    assert process.stdout.count(': training') == 4
    assert '| bags ' in process.stdout
    assert (project / 'grid' / 'ablation.png').is_file()

    path = project / 'grid' / 'commands' / 'bags_seed=0.sh'
    where, line = path.read_text().splitlines()
    assert where == f'# In {project}:'
    assert shlex.split(line) == [
        *command('train.py', 'grid/configs/bags_seed=0.py'),
        *('--work-dir', 'grid/bags_seed=0', '--resume', 'auto'),
    ]
    weights = load_checkpoint(project, 'bags_seed=0')
    shutil.rmtree(project / 'grid' / 'bags_seed=0')
    pasted = run_process(['bash', '-c', line], project)
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    for name, value in load_checkpoint(project, 'bags_seed=0').items():
        assert torch.equal(value, weights[name])

    again = call_grid(*grid)
    assert again.returncode == 0
    assert ': training' not in again.stdout
    assert read_csv(project) == rows

    changed = call_grid(
        'softmax.py', '--cfg-options', 'train_cfg.max_epochs=2'
    )
    assert changed.returncode == 1
    assert 'was started with another config' in changed.stderr


def test_failing_run_is_reported_and_the_others_go_on(project):
    process = run_grid(
        project, 'bags.py', '--set', BIN_EDGES, '(3,2)', '[2,3]'
    )
    assert process.returncode == 1
    assert 'Traceback' not in process.stderr
    line = process.stderr.splitlines()[-1]
    assert line.startswith('failed: bags_bin_edges=3,2_seed=0: ')
    assert 'bin_edges is (3, 2)' in line
    (row,) = read_csv(project)
    assert row[BIN_EDGES] == '[2, 3]'


def test_goes_on_after_an_interruption(project, call_grid):
    grid = (
        *('softmax.py', '--cfg-options'),
        *('train_cfg.max_epochs=40', 'train_cfg.val_interval=40'),
    )
    process = subprocess.Popen(
        command('ablate.py', *grid, '--work-dir', 'grid'),
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    run = project / 'grid' / 'softmax_seed=0'
    while not (run / 'last_checkpoint').exists():
        assert process.poll() is None
        time.sleep(0.05)

    second = call_grid(*grid)
    assert second.returncode == 1
    assert 'another ablate.py' in second.stderr

    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'the same command goes on' in out
    assert not (run / 'metrics.json').exists()

    third = run_grid(project, *grid)
    assert third.returncode == 0, third.stdout + third.stderr
    assert (run / 'epoch_40.pth').is_file()
    assert re.search(r'resumed epoch: [1-9]', (run / 'log.txt').read_text())
    metrics = json.loads((run / 'metrics.json').read_text())
    assert float(read_csv(project)[0]['coco/bbox_mAP']) == pytest.approx(
        metrics['coco/bbox_mAP']
    )


def test_slurm_where_there_is_none(project, call_grid, monkeypatch):
    monkeypatch.setenv('PATH', str(project))
    process = call_grid('softmax.py', '--launcher', 'slurm')
    assert process.returncode == 1
    assert process.stderr.startswith('error: --launcher slurm: no sbatch on')
    assert not list(project.glob('grid/*/metrics.json'))

    process = call_grid('softmax.py', '--max-jobs', 2)
    assert process.returncode == 2
    assert '--max-jobs is for --launcher slurm' in process.stderr


def test_mistakes_show_before_training(project, call_grid):
    for arguments, expected in [
        (['no.py'], 'no.py: no such config'),
        (['softmax.py', '--set', 'modle.x', '1'], '--set modle.x'),
    ]:
        process = call_grid(*arguments)
        assert process.returncode == 1
        assert process.stderr.splitlines()[-1].startswith('error: ')
        assert expected in process.stderr
    assert not list(project.glob('grid/*/'))
