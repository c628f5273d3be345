import re
import statistics
from pathlib import Path

import pytest
from mmengine.config import Config
from tiny import write_two_stages

from mmdet_longtail.apis.sweep import (
    Run,
    Sweep,
    in_a_name,
    locate,
    parse_value,
    plot,
    print_table,
    summarise,
    write_csv,
)
from mmdet_longtail.errors import LongTailError

LOSS = 'model.roi_head.bbox_head.loss_cls'
BIN_EDGES = f'{LOSS}.bin_edges'
BATCH_SIZE = 'train_dataloader.batch_size'


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_two_stages(tmp_path)


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


def test_a_value_with_an_open_bracket():
    with pytest.raises(LongTailError, match=r'closed brackets, found \[1,2'):
        parse_value('[1,2')


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


def test_long_names_differ():
    names = {in_a_name({'x': 'y' * 300, 'z': i}) for i in range(2)}
    assert len(names) == 2
    assert all(len(name) < 80 for name in names)


def write_plain_config(path, text=''):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'val_cfg = dict()\nmodel = dict()\nlr = 1\n{text}')
    return str(path)


def test_every_method_has_one_seed_before_the_next(tmp_path):
    configs = [
        write_plain_config(tmp_path / name) for name in ('a.py', 'x/b.py')
    ]
    settings = {'model.k': [1, 2], 'lr': [0.1]}
    sweep = Sweep(tmp_path, configs, settings, [0, 7])
    assert [run.name for run in sweep.runs] == [
        'a_k=1_lr=0.1_seed=0',
        'a_k=2_lr=0.1_seed=0',
        'b_k=1_lr=0.1_seed=0',
        'b_k=2_lr=0.1_seed=0',
        'a_k=1_lr=0.1_seed=7',
        'a_k=2_lr=0.1_seed=7',
        'b_k=1_lr=0.1_seed=7',
        'b_k=2_lr=0.1_seed=7',
    ]


def test_keys_with_the_same_end_are_spelled_out(tmp_path):
    config = write_plain_config(tmp_path / 'a.py', 'x = dict()\ny = dict()')
    (run,) = Sweep(tmp_path, [config], {'x.lr': [1], 'y.lr': [2]}).runs
    assert run.name == 'a_x.lr=1_y.lr=2_seed=0'


@pytest.mark.parametrize(
    ('names', 'values', 'seeds'),
    [
        (['a.py', 'x/a.py'], [1], [0]),
        (['a.py'], [1, 1], [0]),
        (['a.py'], [1], [0, 0]),
    ],
)
def test_two_runs_of_one_name_are_an_error(tmp_path, names, values, seeds):
    configs = [write_plain_config(tmp_path / name) for name in names]
    with pytest.raises(LongTailError, match='two runs are called a_'):
        Sweep(tmp_path, configs, {'lr': values}, seeds)


def test_two_bases_of_one_name_are_an_error(project):
    (project / 'other').mkdir()
    (project / 'other' / 'softmax.py').write_text(
        "_base_ = '../softmax.py'\ntrain_cfg = dict(max_epochs=7)\n"
    )
    (project / 'other' / 'eql.py').write_text(
        "_base_ = '../bags.py'\nbase_config = 'softmax.py'\n"
    )
    with pytest.raises(LongTailError, match='two trainings are called soft'):
        Sweep('grid', ['bags.py', 'other/eql.py'])


def test_a_run_keeps_its_checkpoint(project):
    for name, content in (('a', b'1'), ('b', b'2'), ('copy', b'1')):
        (project / f'{name}.pth').write_bytes(content)

    def write(**options):
        Sweep('grid', ['bags.py'], **options).runs[0].write()

    folder = project / 'grid' / 'bags_seed=0'
    folder.mkdir(parents=True)
    write()
    write(base_checkpoint='a.pth')
    (folder / 'last_checkpoint').write_text('epoch_1.pth')
    write(base_checkpoint='copy.pth')
    for options in (dict(base_checkpoint='b.pth'), {}):
        with pytest.raises(LongTailError, match='from another checkpoint'):
            write(**options)


@pytest.mark.parametrize(
    'key',
    ['modle.x', 'model.haed.x', 'top', 'model.depth.x', 'model.heads.2.x'],
)
def test_misspelled_keys_are_an_error(key):
    config = Config({'model': {'depth': 18, 'heads': [{}, {}]}})
    with pytest.raises(LongTailError, match=re.escape(f'--set {key}:')):
        locate(config, key)


def test_a_setting_replaces_the_value_of_the_config(project):
    loss = {'type': 'EqualizationLoss', 'num_classes': 4}
    (run,) = Sweep('grid', ['bags.py'], {LOSS: [loss]}, [3]).runs
    assert run.config.model.roi_head.bbox_head.loss_cls == loss
    assert run.config.randomness.seed == 3


def test_the_base_has_the_settings_that_the_stage_inherits(project):
    settings = {BIN_EDGES: [(2, 3)], BATCH_SIZE: [1]}
    sweep = Sweep('grid', ['bags.py'], settings, [3])
    (run,) = sweep.runs
    assert run.base.name == 'softmax_batch_size=1_seed=3'
    assert run.base.base is None
    assert run.config.load_from == f'grid/{run.base.name}'


def test_bases_come_first_and_once(project):
    stage = "_base_ = 'bags.py'\nbase_config = 'bags.py'\n"
    (project / 'third.py').write_text(stage)
    settings = {BIN_EDGES: [(2, 3), [2]]}
    sweep = Sweep('grid', ['third.py', 'bags.py'], settings)
    assert [(len(run.stages), run.name) for run in sweep.with_bases()] == [
        (1, 'softmax_seed=0'),
        (2, 'bags_bin_edges=2,3_seed=0'),
        (3, 'third_bin_edges=2,3_seed=0'),
        (2, 'bags_bin_edges=2_seed=0'),
        (3, 'third_bin_edges=2_seed=0'),
    ]


def test_runs_without_results_are_an_error(project):
    with (project / 'softmax.py').open('a') as file:
        file.write('val_dataloader = val_evaluator = val_cfg = None\n')
    with pytest.raises(LongTailError, match=r'softmax\.py: has no val_cfg'):
        Sweep('grid', ['softmax.py'])


# -- the results -------------------------------------------------------------


@pytest.fixture
def results():
    values = {('a.py', 0): 0.1, ('a.py', 1): 0.3, ('b.py', 0): 0}
    return {
        Run(Path(), path, (('x.k', [1, 2]),), seed, Config()): {
            'frequency_group/bbox_AP': value,
            'frequency_group/bbox_AP50': 0.9,
            'frequency_group/bbox_APr': -1,
            'frequency_group/bbox_AP_classes': 4,
        }
        for (path, seed), value in values.items()
    }


def test_summary_is_of_ap_over_all_sizes_and_seeds(results):
    assert summarise(results) == {
        'frequency_group/bbox_AP': {'a_k=1,2': [0.1, 0.3], 'b_k=1,2': [0]},
        'frequency_group/bbox_APr': {'a_k=1,2': [], 'b_k=1,2': []},
    }
    assert [*summarise(results, ['AP50'])] == ['frequency_group/bbox_AP50']
    with pytest.raises(LongTailError, match='--metric: no result ends with x'):
        summarise(results, ['x'])


def test_csv(tmp_path, results):
    write_csv(tmp_path / 'a.csv', results)
    head, *rows = (tmp_path / 'a.csv').read_text().splitlines()
    assert head.startswith('config,x.k,seed,frequency_group/bbox_AP,')
    assert rows[1].startswith('a.py,"[1, 2]",1,0.3,0.9,-1,4')


def test_table_and_plot(tmp_path, results, capsys):
    summary = summarise(results)
    print_table(summary)
    rows = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if '|' in line
    ]
    std = statistics.stdev([10, 30])
    assert rows[0] == ['method', 'bbox_AP %', 'bbox_APr %', 'seeds']
    assert rows[2] == ['a_k=1,2', f'20.0 ± {std:.1f}', '-', '2']
    assert rows[3] == ['b_k=1,2', '0.0', '-', '1']
    columns = summary['frequency_group/bbox_AP']
    further = {key: [0.1] for key in columns}
    print_table(summary | {'checked_1.0/bbox_AP': further})
    head = capsys.readouterr().out
    assert '| frequency_group/bbox_AP % |' in head
    assert '| checked_1.0/bbox_AP % |' in head
    plot(tmp_path / 'plot.png', summary)
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')
