"""tools/ablate.py, in real runs, through kills and failures."""

import csv
import json
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest
import torch
from mmengine.config import Config
from tiny import write_two_stages
from tool_runs import command, environment, refused, run_process

LOSS_WEIGHT = 'model.roi_head.bbox_head.loss_cls.loss_weight'


@pytest.fixture
def project(tmp_path):
    return write_two_stages(tmp_path)


def run_grid(project, *args):
    return run_process(
        command('ablate.py', *args, '--work-dir', 'grid'), project
    )


def read_csv(project):
    with open(project / 'grid' / 'ablation.csv') as file:
        return list(csv.DictReader(file))


@pytest.fixture
def call_grid(project, call_tool, monkeypatch):
    """Run the tool in this process, where it trains nothing."""
    monkeypatch.setattr(signal, 'signal', lambda *_: None)

    def call(*args):
        return call_tool('ablate.py', '--work-dir', 'grid', *args, cwd=project)

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
        assert kept.load_from == f'grid/softmax_seed={seed}'
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


def test_cached_stages_on_a_given_detector(project, call_grid):
    """One process writes the cache, and later ones read it."""
    base = run_grid(project, 'softmax.py')
    assert base.returncode == 0, base.stdout + base.stderr
    grid = ('bags.py', '--base-checkpoint', 'grid/softmax_seed=0')
    grid += ('--cached', '--set', LOSS_WEIGHT, '1e39', '1', '2')
    process = run_grid(project, *grid)
    assert process.returncode == 1
    line = process.stderr.splitlines()[-1]
    assert line.startswith('failed: bags_loss_weight=1e+39_seed=0: ')
    assert 'lower the learning rate' in line
    assert [row[LOSS_WEIGHT] for row in read_csv(project)] == ['1', '2']
    name = 'bags_loss_weight=2_seed=0'
    log = (project / 'grid' / name / 'log.txt').read_text()
    assert log.count('Features are read from') == 2
    weights = load_checkpoint(project, name)
    frozen = load_checkpoint(project, 'softmax_seed=0')
    assert weights.keys() >= frozen.keys()

    # The command of a run is that of a process of its own.
    path = project / 'grid' / 'commands' / f'{name}.sh'
    shutil.rmtree(project / 'grid' / name)
    pasted = run_process(['bash', '-c', path.read_text()], project)
    assert pasted.returncode == 0, pasted.stdout + pasted.stderr
    for key, value in load_checkpoint(project, name).items():
        assert torch.equal(value, weights[key])


def test_cached_needs_a_classifier_stage(call_grid):
    for arguments, words in (
        (('softmax.py', '--cached'), '--cached: softmax.py freezes no'),
        (
            ('softmax.py', '--base-checkpoint', 'softmax.py'),
            'softmax.py has no base_config',
        ),
    ):
        assert words in refused(call_grid(*arguments))


def test_failing_run_is_reported_and_the_others_go_on(project):
    # The first makes an infinite loss.
    process = run_grid(project, 'bags.py', '--set', LOSS_WEIGHT, '1e39', '0.5')
    assert process.returncode == 1
    assert 'Traceback' not in process.stderr
    line = process.stderr.splitlines()[-1]
    assert line.startswith('failed: bags_loss_weight=1e+39_seed=0: ')
    assert 'lower the learning rate' in line
    (row,) = read_csv(project)
    assert row[LOSS_WEIGHT] == '0.5'


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
    assert 'the same command resumes' in out
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
    assert '--max-jobs needs --launcher slurm' in process.stderr


def test_mistakes_show_before_training(project, call_grid):
    for arguments, expected in [
        (['no.py'], 'no.py: no such config'),
        (['softmax.py', '--set', 'modle.x', '1'], '--set modle.x'),
        (['softmax.py', '--set', 'model'], '--set model: no value'),
        (['softmax.py', '--metric', 'mAP', 'mAP_5'], 'ends with mAP_5, '),
        (['softmax.py', '--work-dir', 'softmax.py/grid'], 'cannot be written'),
    ]:
        process = call_grid(*arguments)
        assert process.returncode == 1
        assert process.stderr.splitlines()[-1].startswith('error: ')
        assert expected in process.stderr
    assert not list(project.glob('grid/*/'))
    for seed in ('-1', '4294967296', 'x'):
        process = call_grid('softmax.py', '--seeds', seed)
        assert process.returncode == 2
        assert 'argument --seeds' in process.stderr


@pytest.mark.parametrize('content', ['', '{"coco/bbox_mAP": 0.', '[]', '1'])
def test_broken_results_show_before_training(project, call_grid, content):
    run = project / 'grid' / 'bags_seed=0'
    run.mkdir(parents=True)
    (run / 'metrics.json').write_text(content)
    line = refused(call_grid('softmax.py', 'bags.py'))
    assert line.startswith(str(run.relative_to(project) / 'metrics.json'))
    assert not (project / 'grid' / 'softmax_seed=0').exists()


def test_learning_rates_are_searched_first(project, call_grid):
    base = run_grid(project, 'softmax.py')
    assert base.returncode == 0, base.stdout + base.stderr
    grid = ('bags.py', '--base-checkpoint', 'grid/softmax_seed=0', '--cached')
    grid += ('--held-out', '0.5', '--search-lr', '0.001', '0.01')
    grid += ('--retrain-base',)
    process = run_grid(project, *grid)
    assert process.returncode == 0, process.stdout + process.stderr
    # The base and two rates without the held-out images, then the best rate.
    assert process.stdout.count(': training') == 4
    record = json.loads((project / 'grid/learning_rates.json').read_text())
    found = record['methods']['bags']
    aps = {float(rate): ap for rate, ap in found['AP'].items()}
    assert aps.keys() == {0.001, 0.01}
    best = found['learning_rate']
    assert aps[best] == max(aps.values())
    (row,) = read_csv(project)
    assert float(row['optim_wrapper.optimizer.lr']) == best
    run = project / 'grid' / f'bags_lr={best:g}_seed=0'
    assert (run / 'epoch_1.pth').is_file()

    again = call_grid(*grid)
    assert again.returncode == 0, again.stderr
    assert ': training' not in again.stdout
