"""The search of learning rates, without its trainings."""

import json

import pytest
from mmengine.config import Config
from tiny import write_two_stages

from mmdet_longtail.apis.search_lr import LearningRateSearch, overall_ap
from mmdet_longtail.apis.sweep import LEARNING_RATE, Sweep, method_name
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures import ClassStatistics

LOSS_WEIGHT = 'model.roi_head.bbox_head.loss_cls.loss_weight'
EVALUATED = 'val_evaluator = dict(_delete_=True, type="OpenImagesMetric")'
TESTED = """
val_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[]))
"""
MERGED = """
train_dataloader = dict(dataset=dict(
    _delete_=True, type='ConcatDataset', datasets=[]))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_two_stages(tmp_path)


def search(configs=('bags.py',), rates=(0.1, 0.2), **options):
    options = {'base_checkpoint': 'softmax.pth', 'held_out': 0.5, **options}
    return LearningRateSearch('grid', configs, rates, **options)


def ids(path):
    return {image['id'] for image in json.loads(path.read_text())['images']}


def finish(run, ap):
    run.folder.mkdir(parents=True)
    metrics = {'coco/bbox_mAP_50': 0.9, 'coco/bbox_mAP': ap}
    (run.folder / 'metrics.json').write_text(json.dumps(metrics))


def test_trainings_read_one_part_and_are_evaluated_on_the_other(project):
    whole = Config.fromfile(project / 'bags.py')
    runs = search(settings={LOSS_WEIGHT: [1, 2]}).sweep.runs
    assert [run.name for run in runs] == [
        'bags_loss_weight=1_lr=0.1_seed=0',
        'bags_loss_weight=1_lr=0.2_seed=0',
        'bags_loss_weight=2_lr=0.1_seed=0',
        'bags_loss_weight=2_lr=0.2_seed=0',
    ]
    for run in runs:
        assert run.base is None and run.config.load_from == 'softmax.pth'
        train = run.config.train_dataloader.dataset
        val = run.config.val_dataloader.dataset
        assert train.pipeline == whole.train_dataloader.dataset.pipeline
        assert val.pipeline == whole.val_dataloader.dataset.pipeline
        assert val.ann_file == run.config.val_evaluator.ann_file
        folder = project / 'grid' / 'search_lr' / 'images'
        (parts,) = folder.iterdir()
        assert train.ann_file == str(parts / 'kept.json')
        assert val.ann_file == str(parts / 'held_out.json')
        statistics = run.config.default_hooks.class_statistics
        assert ClassStatistics.load(statistics.class_statistics) == (
            ClassStatistics.from_annotation_file(project / 'data/train.json')
        )
    kept, held_out = ids(parts / 'kept.json'), ids(parts / 'held_out.json')
    assert kept and held_out and not kept & held_out
    assert kept | held_out == ids(project / 'data' / 'train.json')
    for part, images in (('kept', kept), ('held_out', held_out)):
        content = json.loads((parts / f'{part}.json').read_text())
        assert {a['image_id'] for a in content['annotations']} <= images


def test_bases_train_on_the_same_part_at_their_own_rate(project):
    search()
    sweep = search(base_checkpoint=None).sweep
    assert sweep.work_dir.name == 'search_lr_retrained'
    base, *runs = sweep.with_bases()
    assert base.name == 'softmax_seed=0'
    assert [run.base.name for run in runs] == [base.name] * 2
    own = Config.fromfile(project / 'softmax.py').optim_wrapper
    assert base.config.optim_wrapper == own
    for split, part in (('train', 'kept'), ('val', 'held_out')):
        (path,) = {
            stage.config[f'{split}_dataloader'].dataset.ann_file
            for stage in (base, *runs)
        }
        assert path.endswith(f'{part}.json')


def test_parts_are_written_once_per_file_fraction_and_seed(project):
    folder = project / 'grid' / 'search_lr' / 'images'
    search()
    (first,) = folder.iterdir()
    before = (first / 'kept.json').stat().st_mtime_ns
    search()
    assert (first / 'kept.json').stat().st_mtime_ns == before
    search(held_out=0.4)
    search(seed=1)
    assert len(list(folder.iterdir())) == 3


def test_the_best_rate_is_taken_per_method(project, capsys):
    searched = search(rates=[0.1, 0.2, 0.3], settings={LOSS_WEIGHT: [1, 2, 3]})
    first, second, third = (searched.sweep.runs[i : i + 3] for i in (0, 3, 6))
    for run, ap in zip(first, (0.2, 0.3, 0.1)):
        finish(run, ap)
    finish(second[0], 0.4)
    for run in third:
        finish(run, 0.5)
    failures = {run.name: 'infinite' for run in second[1:]}
    assert searched.missing == second[1:]
    best = searched.choose(failures)
    methods = [f'bags_loss_weight={w}' for w in (1, 2, 3)]
    assert best == dict(zip(methods, (0.2, 0.1, 0.1)))
    out = capsys.readouterr().out
    assert f'{methods[1]}: the best learning rate 0.1 is at the end' in out
    assert 'a lower one may be better' in out
    assert f'{methods[0]}:' not in out
    record = json.loads(searched.record.read_text())
    assert record['methods'][methods[0]] == {
        'learning_rate': 0.2,
        'AP': {'0.1': 0.2, '0.2': 0.3, '0.3': 0.1},
    }
    sweep = Sweep(
        'grid', ['bags.py'], {LOSS_WEIGHT: [1, 2, 3]}, learning_rates=best
    )
    assert [dict(run.settings)[LEARNING_RATE] for run in sweep.runs] == (
        list(best.values())
    )
    assert sweep.runs[0].name == 'bags_loss_weight=1_lr=0.2_seed=0'
    assert sweep.runs[0].config.optim_wrapper.optimizer.lr == 0.2


def test_a_failed_run_has_no_say_by_earlier_metrics(project):
    searched = search()
    for run, ap in zip(searched.sweep.runs, (0.3, 0.2)):
        finish(run, ap)
    failures = {searched.sweep.runs[0].name: 'another config'}
    assert searched.choose(failures) == {'bags': 0.2}


def test_counts_of_another_file_are_not_those_of_before(project):
    search()
    counts = ClassStatistics.from_annotation_file(project / 'data/val.json')
    counts.save(project / 'counts.json')
    (project / 'counted.py').write_text(
        "_base_ = 'bags.py'\nbase_config = 'softmax.py'\n"
        'default_hooks = dict(class_statistics=dict(\n'
        "    type='ClassStatisticsHook', class_statistics='counts.json'))\n"
    )
    (run, _) = search(configs=['counted.py']).sweep.runs
    found = run.config.default_hooks.class_statistics.class_statistics
    assert ClassStatistics.load(found) == counts


@pytest.mark.parametrize('ap', [-1, None])
def test_a_method_without_an_ap_is_an_error(project, ap):
    searched = search()
    failures = {}
    for run in searched.sweep.runs:
        if ap is None:
            failures[run.name] = 'the loss is infinite'
        else:
            finish(run, ap)
    words = 'no object is held out' if failures == {} else 'is infinite'
    with pytest.raises(LongTailError, match=f'bags: no learning.*{words}'):
        searched.choose(failures)


def test_what_cannot_be_searched_is_one_line(project):
    head = "_base_ = 'bags.py'\nbase_config = 'softmax.py'\n"
    (project / 'evaluated.py').write_text(head + EVALUATED)
    (project / 'merged.py').write_text(head + MERGED)
    (project / 'tested.py').write_text(head + TESTED)
    for options, words in (
        (dict(settings={LEARNING_RATE: [1]}), f'--set {LEARNING_RATE}'),
        (dict(configs=['evaluated.py']), 'an evaluator reads no ann_file'),
        (dict(configs=['merged.py']), 'has no ann_file of its own'),
        (dict(configs=['tested.py']), 'ConcatDataset without a pipeline'),
        (dict(rates=[0.1, 0.1]), 'two runs are called'),
    ):
        with pytest.raises(LongTailError, match=words) as error:
            search(**options)
        assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'name', ['lvis/bbox_AP', 'frequency_group/bbox_AP', 'coco/bbox_mAP', 'mAP']
)
def test_the_ap_of_all_classes_is_found(name):
    others = {'lvis/bbox_APr': 0.1, 'coco/bbox_mAP_50': 0.2, 'lvis/AP50': 0.3}
    assert overall_ap({**others, name: 0.4}) == 0.4
    assert overall_ap(others) == -1


def test_a_method_is_a_config_with_settings():
    assert method_name('a/b.py', [('x.y', 1)]) == 'b_y=1'
