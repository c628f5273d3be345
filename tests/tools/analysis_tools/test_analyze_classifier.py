"""Gradients and probabilities by class, on a detector that is small."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.detectors import FasterRCNN
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from naive import group_probs, sigmoids, softmax
from ranks import run_on_two_ranks
from tiny import CLASS_NAMES, make_data, write_config
from tool_runs import refused, run_tool

from mmdet_longtail.apis.proposal_accuracy import (
    ProposalAccuracy,
    label_groups,
)
from mmdet_longtail.engine.hooks import ClassifierMonitorHook
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.models.utils.classifier_recorder import (
    GRADIENTS,
    MEASURES,
    ClassifierRecorder,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

C = len(CLASS_NAMES)
TOOL = 'analysis_tools/analyze_classifier.py'
# Every class but the first, which is in all images, is tail.
EQL = dict(
    _delete_=True,
    type='EqualizationLoss',
    num_classes=C,
    frequency_threshold=1.0,
)
BAGS = dict(
    _delete_=True,
    type='BalancedGroupSoftmaxLoss',
    num_classes=C,
    bin_edges=(2, 4),
)
SEESAW = dict(_delete_=True, type='SeesawLoss', num_classes=C)
LOSS = 'model.roi_head.bbox_head.loss_cls'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes')


def config_of(data, work_dir, loss_cls=None, **overrides):
    work_dir.mkdir(parents=True, exist_ok=True)
    config = Config.fromfile(write_config(work_dir / 'config.py', data))
    overrides = {
        'default_hooks.class_statistics': dict(type='ClassStatisticsHook')
    } | overrides
    if loss_cls is not None:
        overrides[LOSS] = loss_cls
    if overrides['default_hooks.class_statistics'] is None:
        del overrides['default_hooks.class_statistics']
    config.merge_from_dict(overrides)
    config.work_dir = str(work_dir)
    config.experiment_name = f'{work_dir.parent.name}_{work_dir.name}'
    return config


def as_cascade(model):
    """Three stages in place of one."""
    head = model.roi_head
    model.type = 'CascadeRCNN'
    head.type = 'CascadeRoIHead'
    head.num_stages = 3
    head.stage_loss_weights = [1, 0.5, 0.25]
    head.bbox_head = [head.bbox_head] * 3
    model.train_cfg.rcnn = [model.train_cfg.rcnn] * 3


def built(config, data):
    """The detector with large random classifiers, and a batch."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config.model).eval()
    for head in classifier_heads(model).values():
        torch.nn.init.normal_(head.fc_cls.weight)
        if hasattr(head.loss_cls, 'set_class_statistics'):
            head.loss_cls.set_class_statistics(
                ClassStatistics.from_annotation_file(data / 'train.json')
            )
    dataset = DATASETS.build(config.train_dataloader.dataset)
    samples = [dataset[0], dataset[1]]
    batch = {key: [s[key] for s in samples] for key in samples[0]}
    return model, model.data_preprocessor(batch, training=True)


def capture(model):
    """What each head hands to its loss."""
    calls = []
    for head in classifier_heads(model).values():
        head.loss_cls.register_forward_hook(
            lambda loss, args, output: calls.append(
                [arg.detach().tolist() for arg in args]
            )
        )
    return calls


def naive_measures(calls, logit_gradient, probability):
    """The definitions, one RoI and class at a time.

    Both losses are means over RoIs, so N_b * dL_b/dz is what one RoI adds.
    """
    rois = [0] * C
    sums = {kind: [0.0] * C for kind in GRADIENTS}
    probabilities = [0.0] * C
    num_rois = 0
    for scores, labels, weights in calls:
        for z, label, weight in zip(scores, labels, weights):
            if weight == 0:
                continue
            num_rois += 1
            for c in range(C):
                gradient = abs(logit_gradient(z, label, c))
                if label == c:
                    sums['gradient_positive'][c] += gradient
                elif label < C:
                    sums['gradient_foreground_negative'][c] += gradient
                else:
                    sums['gradient_background_negative'][c] += gradient
            if label < C:
                rois[label] += 1
                probabilities[label] += probability(z, label)
    measures = {k: [x / num_rois for x in v] for k, v in sums.items()}
    measures['positive_rois'] = rois
    measures['probability'] = [
        p / n if n else math.nan for p, n in zip(probabilities, rois)
    ]
    return measures


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax_gradient(z, label, c):
    return softmax(z)[c] - (label == c)


def eql_gradient(z, label, c):
    prior_logit = math.log(0.001 / 0.999)
    is_tail = c > 0
    if label < C and label != c and is_tail:
        return 0.0
    return sigmoid(z[c] + prior_logit) - (label == c)


@pytest.mark.parametrize('is_cascade', [False, True])
@pytest.mark.parametrize(
    'loss_cls, logit_gradient, probability',
    [
        (None, softmax_gradient, lambda z, c: softmax(z)[c]),
        (
            EQL,
            eql_gradient,
            lambda z, c: sigmoid(z[c] + math.log(0.001 / 0.999)),
        ),
    ],
    ids=['softmax', 'eql'],
)
def test_equals_a_naive_loop(
    data, tmp_path, loss_cls, logit_gradient, probability, is_cascade
):
    config = config_of(data, tmp_path, loss_cls)
    if is_cascade:
        as_cascade(config.model)
    model, batch = built(config, data)
    calls = capture(model)
    recorder = ClassifierRecorder(model)
    recorder.start()
    for _ in range(2):
        model(**batch, mode='loss')
    recorder.stop()
    num_counted = len(calls)
    assert num_counted == (6 if is_cascade else 2)
    expected = naive_measures(calls, logit_gradient, probability)
    model(**batch, mode='loss')  # after the end: not counted
    found = recorder.measures()
    assert list(found) == list(MEASURES)
    assert max(expected['positive_rois']) > 2
    for name, values in expected.items():
        assert found[name].tolist() == pytest.approx(
            values, rel=1e-4, abs=1e-9, nan_ok=True
        ), name
    norms = [
        [math.hypot(*row) for row in head.fc_cls.weight.tolist()[:C]]
        for head in classifier_heads(model).values()
    ]
    means = [sum(column) / len(norms) for column in zip(*norms)]
    assert found['weight_norm'].tolist() == pytest.approx(means)


def test_eql_takes_the_gradients_of_other_objects_from_tail_classes(
    data, tmp_path
):
    model, batch = built(config_of(data, tmp_path, EQL), data)
    recorder = ClassifierRecorder(model)
    recorder.start()
    model(**batch, mode='loss')
    found = recorder.measures()
    negatives = found['gradient_foreground_negative'].tolist()
    assert negatives[0] > 0 and negatives[1:] == [0.0] * (C - 1)
    assert (found['gradient_background_negative'] > 0).all()


def test_rois_that_do_not_train_are_not_recorded(data, tmp_path):
    """None at all, and those that OHEMSampler chooses from."""
    model, _ = built(config_of(data, tmp_path, EQL), data)
    [head] = classifier_heads(model).values()
    recorder = ClassifierRecorder(model)
    recorder.start()
    none = torch.zeros(0, dtype=torch.long)
    scores = torch.zeros(0, C, requires_grad=True)
    head.loss(
        scores, None, torch.zeros(0, 5), none, torch.zeros(0), None, None
    )
    with torch.no_grad():
        head.loss_cls(
            torch.zeros(2, C), none.new_tensor([0, C]), torch.ones(2)
        )
    assert not recorder.sums.any()


@pytest.mark.parametrize('loss_cls', [BAGS, SEESAW], ids=['bags', 'seesaw'])
def test_losses_of_several_terms_and_frozen_detectors(
    data, tmp_path, loss_cls
):
    """The gradients are those of the sum of the terms."""
    model, batch = built(config_of(data, tmp_path, loss_cls), data)
    model.requires_grad_(False)
    [head] = classifier_heads(model).values()
    kept = []
    head.loss_cls.register_forward_hook(
        lambda loss, args, output: kept.append((args, output))
    )
    recorder = ClassifierRecorder(model)
    recorder.start()
    model(**batch, mode='loss')
    [((cls_score, labels, _), output)] = kept
    assert isinstance(output, dict) and len(output) > 1
    sum(output.values()).backward()
    found = recorder.measures()
    total = sum(found[name] for name in GRADIENTS)
    expected = cls_score.grad[:, :C].abs().sum(0)
    assert total.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert found['positive_rois'].tolist() == [
        (labels == c).sum().item() for c in range(C)
    ]


# -- the hook ---------------------------------------------------------------


class History(Hook):
    """Keeps the scalars of the classifier after each iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.scalars = []

    def after_train_iter(
        self, runner, batch_idx, data_batch=None, outputs=None
    ):
        prefix = 'train/classifier/'
        self.scalars.append(
            {
                name.removeprefix(prefix): buffer.current()
                for name, buffer in runner.message_hub.log_scalars.items()
                if name.startswith(prefix)
            }
        )


def trained(data, work_dir, loss_cls=None, **overrides):
    runner = Runner.from_cfg(config_of(data, work_dir, loss_cls, **overrides))
    history = History()
    runner.register_hook(history)
    runner.train()
    return runner, history.scalars


def test_hook_logs_groups_and_changes_nothing(data, tmp_path):
    plain, nothing = trained(data, tmp_path / 'plain')
    hook = dict(type='ClassifierMonitorHook', interval=2)
    monitored, scalars = trained(
        data,
        tmp_path / 'monitored',
        **{'default_hooks.classifier_monitor': hook},
    )
    assert nothing == [{}, {}]
    assert scalars[0] == {}
    assert set(scalars[1]) == {f'rare/{name}' for name in MEASURES}
    assert scalars[1]['rare/positive_rois'] >= 1
    assert 0 < scalars[1]['rare/probability'] < 1
    weights = monitored.model.state_dict()
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    [log] = (tmp_path / 'monitored').glob('*/vis_data/scalars.json')
    last = [
        json.loads(line)
        for line in log.read_text().splitlines()
        if 'loss_cls' in line
    ][-1]
    assert last['classifier/rare/gradient_positive'] == pytest.approx(
        scalars[1]['rare/gradient_positive'], rel=1e-3
    )


def test_hook_needs_groups_and_a_classifier(data, tmp_path):
    with pytest.raises(LongTailError, match='interval is 0'):
        ClassifierMonitorHook(interval=0)
    with pytest.raises(LongTailError, match='ClassStatisticsHook') as error:
        trained(
            data,
            tmp_path,
            **{
                'default_hooks.class_statistics': None,
                'default_hooks.classifier_monitor': dict(
                    type='ClassifierMonitorHook'
                ),
            },
        )
    assert '\n' not in str(error.value)
    with pytest.raises(LongTailError, match='Linear has no RoI head'):
        ClassifierRecorder(torch.nn.Linear(1, 1))


def test_hook_adds_up_ranks(data, tmp_path):
    """Also with a rank that had no RoIs, whose loss mmdet does not call."""
    run_on_two_ranks(_monitor_on_rank, str(data), str(tmp_path))
    first, second = (
        json.loads((tmp_path / f'{rank}.json').read_text())
        for rank in range(2)
    )
    assert first['scalars'] == second['scalars']
    assert first['scalars'][0]['rare/positive_rois'] > 0
    assert first['before'] == second['after'] == first['after']
    assert second['before'] == [0.0] * C


def _monitor_on_rank(rank, data, folder):
    data, work_dir = Path(data), Path(folder, f'rank{rank}')
    _, scalars = trained(
        data,
        work_dir,
        **{
            'default_hooks.classifier_monitor': dict(
                type='ClassifierMonitorHook', interval=1
            ),
            'launcher': 'pytorch',
            'model_wrapper_cfg': dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
            ),
        },
    )
    model, batch = built(config_of(data, work_dir), data)
    recorder = ClassifierRecorder(model)
    recorder.start()
    if rank == 0:
        model(**batch, mode='loss')
    before = recorder.measures()['gradient_positive'].tolist()
    recorder.sum_over_ranks()
    after = recorder.measures()['gradient_positive'].tolist()
    Path(folder, f'{rank}.json').write_text(
        json.dumps(dict(scalars=scalars, before=before, after=after))
    )


def write_log(path, lines):
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


def logged(step, positive, foreground, background, rois):
    values = (rois, positive, foreground, background, 0.1, 0.5)
    scalars = {
        f'classifier/rare/{measure}': value
        for measure, value in zip(MEASURES, values)
    }
    return dict(scalars, step=step, loss=1.0)


def test_tool_adds_up_the_log(tmp_path, call_tool):
    write_log(
        tmp_path / 'run/1/vis_data/scalars.json',
        [dict(step=1, loss=1.0), logged(2, 1, 2, 3, 5), logged(4, 9, 9, 9, 9)],
    )
    write_log(  # resumed after iteration 3
        tmp_path / 'run/2/vis_data/scalars.json',
        [logged(4, 3, 0, 8, 6), logged(6, 2, 1, 1, 7)],
    )
    tool = 'analysis_tools/classifier_log.py'
    process = call_tool(tool, 'run', '--iterations', '2-5', '6-6')
    assert process.returncode == 0, process.stderr
    lines = [line.split() for line in process.stdout.splitlines()]
    rows = [line for line in lines if line[:1] == ['run']]
    assert rows == [
        ['run', '2-5', 'rare', '3.25', '0.5', '11'],
        ['run', '6-6', 'rare', '1', '0.5', '7'],
    ]
    process = call_tool(tool, 'run')
    assert process.stdout.split()[-5:] == ['2-6', 'rare', '2.5', '0.5', '18']
    for args, message in (
        (['run', '--iterations', '7-9'], 'only of 2 to 6'),
        (['.'], '.: no */vis_data/scalars.json with scalars of classifier/'),
    ):
        process = call_tool(tool, *args)
        assert process.returncode == 1
        [line] = process.stderr.strip().splitlines()
        assert line.startswith('error: ') and message in line
    process = call_tool(tool, 'run', '--iterations', '5-2')
    assert process.returncode == 2
    assert '5-2 is not two iterations' in process.stderr
    log = tmp_path / 'run/2/vis_data/scalars.json'
    log.write_text(log.read_text().rstrip()[:-9])  # cut off in step 6
    process = call_tool(tool, 'run')
    assert process.stdout.split()[-5:] == ['2-4', 'rare', '3.25', '0.5', '11']
    log.write_text('{"step": \n{}\n')
    line = refused(call_tool(tool, 'run'))
    assert 'scalars.json: line 1 is not a JSON' in line
    log.write_bytes(b'\xff\xfe')
    assert 'scalars.json: cannot be read' in refused(call_tool(tool, 'run'))


# -- proposals --------------------------------------------------------------


def iou_and_share(box, other):
    """IoU of two boxes, and the share of the first that is in the second."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    common = max(width, 0) * max(height, 0)
    area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return common / (area + other_area - common), common / area


def naive_label(box, objects, ignored):
    """The class of a proposal, C for background, None if it is ignored."""
    if any(iou_and_share(box, crowd)[1] > 0.5 for crowd in ignored):
        return None
    overlap, label = max(
        (iou_and_share(box, own)[0], -c) for own, c in objects
    )
    return -label if overlap >= 0.5 else C


def first_of_largest(values):
    return values.index(max(values))


@pytest.mark.parametrize('is_cascade', [False, True])
@pytest.mark.parametrize(
    'loss_cls, probabilities',
    [
        (None, lambda z: [softmax(row) for row in z]),
        (EQL, lambda z: sigmoids(z, math.log(0.001 / 0.999))),
        (BAGS, lambda z: group_probs(z, (4, 3, 2, 1), (2, 4))),
    ],
    ids=['softmax', 'eql', 'bags'],
)
def test_accuracy_on_proposals_equals_a_naive_loop(
    data, tmp_path, loss_cls, probabilities, is_cascade
):
    config = config_of(data, tmp_path, loss_cls)
    config.model.test_cfg.rpn.update(nms_pre=200, max_per_img=100)
    if is_cascade:
        as_cascade(config.model)
    model, _ = built(config, data)
    dataset = DATASETS.build(config.train_dataloader.dataset)
    samples = [dataset[index] for index in range(4)]
    batch = {key: [s[key] for s in samples] for key in samples[0]}
    objects = batch['data_samples'][0].gt_instances
    batch['data_samples'][0].ignored_instances = objects[:1]
    batch['data_samples'][0].gt_instances = objects[1:]
    accuracy = ProposalAccuracy(model)
    accuracy.add(batch)

    batch = model.data_preprocessor(batch)
    scores = []
    for head in classifier_heads(model).values():
        head.fc_cls.register_forward_hook(
            lambda layer, args, output: scores.append(output)
        )
    with torch.no_grad():
        proposals = model.rpn_head.predict(
            model.extract_feat(batch['inputs']), batch['data_samples']
        )
        model.predict(**{f'batch_{key}': batch[key] for key in batch})
    assert len(scores) == (3 if is_cascade else 1)
    mean = (sum(scores) / len(scores)).tolist()
    probs = iter(probabilities(mean))
    found = np.zeros((3, C + 1), int)
    num_ignored = 0
    for boxes, sample in zip(proposals, batch['data_samples']):
        own = list(
            zip(
                sample.gt_instances.bboxes.tolist(),
                sample.gt_instances.labels.tolist(),
            )
        )
        ignored = sample.ignored_instances.bboxes.tolist()
        for box in boxes.bboxes.tolist():
            p = next(probs)
            label = naive_label(box, own, ignored)
            if label is None:
                num_ignored += 1
                continue
            found[0, label] += 1
            found[1, label] += first_of_largest(p) == label
            found[2, label] += first_of_largest(p[:C]) == label
    assert next(probs, None) is None
    assert num_ignored > 0 and found[0, :2].all() and found[0, C] > 0
    assert found[2].sum() > 0
    assert accuracy.counts.tolist() == found.tolist()
    assert accuracy.predicts_background is (loss_cls is not EQL)

    statistics = ClassStatistics.from_annotation_file(data / 'train.json')
    members = label_groups(statistics, (2, 4))
    assert list(members) == [
        *('all', 'below_2', '2_to_4', 'from_4', 'background', 'foreground'),
        *('rare', 'common', 'frequent'),
    ]
    assert members['2_to_4'].tolist() == [False, True, True, False, False]
    proposals, share, class_share = accuracy.over(members['all'])
    assert proposals == found[0].sum()
    assert share == 100 * found[1].sum() / found[0].sum()
    assert math.isnan(class_share)
    own = accuracy.over(members['foreground'])
    assert own == accuracy.over(members['rare'])
    assert own[2] == 100 * found[2].sum() / found[0, :C].sum()
    proposals, share, _ = accuracy.over(members['common'])
    assert proposals == 0 and math.isnan(share)


def test_proposals_of_detectors_that_predict_in_their_own_way(data, tmp_path):
    class OwnDetector(FasterRCNN):
        def predict(self, *args, **kwargs):
            return super().predict(*args, **kwargs)

    class OwnHead(StandardRoIHead):
        def predict_bbox(self, *args, **kwargs):
            return super().predict_bbox(*args, **kwargs)

    model, _ = built(config_of(data, tmp_path), data)
    ProposalAccuracy(model)
    model.roi_head.__class__ = OwnHead
    with pytest.raises(LongTailError, match='OwnHead predicts in its'):
        ProposalAccuracy(model)
    model.__class__ = OwnDetector
    with pytest.raises(LongTailError, match='OwnDetector predicts in its'):
        ProposalAccuracy(model)
    model.rpn_head = None
    with pytest.raises(LongTailError, match='rpn_head: OwnDetector has none'):
        ProposalAccuracy(model)


# -- the tool ---------------------------------------------------------------


@pytest.fixture(scope='module')
def runs(data, tmp_path_factory):
    """Two trained detectors: config and work directory of each."""
    folder = tmp_path_factory.mktemp('runs')
    config_of(data, folder / 'softmax').dump(folder / 'softmax.py')
    run_tool('train.py', 'softmax.py', cwd=folder)
    trained(data, folder / 'eql', EQL)
    return {
        'softmax': (folder / 'softmax.py', folder / 'softmax'),
        'eql': (folder / 'eql/config.py', folder / 'eql'),
    }


def read_rows(path):
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def naive_correlations(rows):
    """Spearman's rho of boxes and norms, all different, of each checkpoint."""
    found = {}
    for name in dict.fromkeys(row['checkpoint'] for row in rows):
        pairs = [
            (int(row['instance_count']), float(row['weight_norm']))
            for row in rows
            if row['checkpoint'] == name
        ]
        n = len(pairs)
        squares = 0
        for boxes, norm in pairs:
            rank = sum(other < boxes for other, _ in pairs)
            squares += (rank - sum(other < norm for _, other in pairs)) ** 2
        found[name] = 1 - 6 * squares / (n * (n * n - 1))
    return found


def test_tool_writes_a_table_and_pictures(runs, data, tmp_path):
    (config, softmax_dir), (_, eql_dir) = runs.values()
    process = run_tool(
        TOOL,
        config,
        softmax_dir,
        eql_dir / 'epoch_1.pth',
        '--out',
        'analysis/here',
        cwd=tmp_path,
    )
    assert '4 images' in process.stdout
    out = tmp_path / 'analysis/here'
    rows = read_rows(out / 'classifier.csv')
    for name, correlation in naive_correlations(rows).items():
        line = f'{name}: rank correlation of weight_norm and instance_count'
        assert f'{line} {correlation:.2f}' in process.stdout
    assert [row['checkpoint'] for row in rows] == ['softmax'] * 4 + ['eql'] * 4
    assert [row['name'] for row in rows] == 2 * list(CLASS_NAMES)
    assert [row['image_count'] for row in rows] == 2 * ['4', '3', '2', '1']
    assert {row['frequency_group'] for row in rows} == {'rare'}
    of_tail = [float(row['gradient_foreground_negative']) for row in rows]
    assert all(value > 0 for value in of_tail[:5])
    assert of_tail[5:] == [0, 0, 0]
    pictures = sorted(path.stem for path in out.glob('*.png'))
    assert pictures == sorted([*MEASURES, 'negative_to_positive'])
    for name in pictures:
        content = (out / f'{name}.png').read_bytes()
        assert content.startswith(b'\x89PNG') and len(content) > 5000
    assert len(list(out.iterdir())) == len(pictures) + 1


def test_tool_takes_validation_images_and_repeats_itself(
    runs, tmp_path, call_tool
):
    config, work_dir = runs['softmax']
    tables = []
    for _ in range(2):
        process = call_tool(
            TOOL,
            *(config, work_dir, '--split', 'val', '--out', 'out'),
            *('--max-images', 1, '--names', 'a'),
        )
        assert process.returncode == 0, process.stderr
        assert '1 images' in process.stdout
        tables.append((tmp_path / 'out/classifier.csv').read_text())
    assert tables[0] == tables[1]


def test_tool_gives_the_accuracy_on_proposals(runs, tmp_path, call_tool):
    (config, softmax_dir), (_, eql_dir) = runs.values()
    args = (config, softmax_dir, eql_dir, '--proposals', '--out', 'out')
    process = call_tool(TOOL, *args, '--bin-edges', 2, 4)
    assert process.returncode == 0, process.stderr
    assert '2 images' in process.stdout
    assert 'eql: its loss gives background the prob' in process.stdout
    assert 'softmax: its loss' not in process.stdout
    rows = read_rows(tmp_path / 'out/proposal_accuracy.csv')
    assert len(list((tmp_path / 'out').iterdir())) == 1
    for name in ('softmax', 'eql'):
        own = {r['group']: r for r in rows if r['checkpoint'] == name}
        num = {group: int(row['proposals']) for group, row in own.items()}
        bins = num['below_2'] + num['2_to_4'] + num['from_4']
        assert bins == num['foreground'] == num['rare']
        assert num['all'] == num['foreground'] + num['background'] > 0
        assert own['2_to_4']['classes'] == '2'
        assert own['common']['accuracy'] == own['all']['class_accuracy'] == ''
    assert float(own['background']['accuracy']) == 0


def test_bad_input_is_one_line(runs, data, tmp_path, call_tool):
    config, work_dir = runs['softmax']
    _, eql_dir = runs['eql']

    def fails(*args):
        process = call_tool(TOOL, *args, '--out', 'out')
        assert process.returncode == 1, process.stdout + process.stderr
        assert not (tmp_path / 'out').exists()
        [line] = process.stderr.strip().splitlines()
        assert line.startswith('error: ')
        return line

    assert 'gone.pth: no such checkpoint' in fails(config, 'gone.pth')
    assert 'gone.py: no such config' in fails('gone.py', work_dir)
    assert 'expected 1 different names' in fails(
        config, work_dir, '--names', 'a', 'b'
    )
    no_val = ('--split', 'val', '--cfg-options', 'val_dataloader=None')
    assert 'has no val_dataloader' in fails(config, work_dir, *no_val)

    checkpoint = torch.load(eql_dir / 'epoch_1.pth', weights_only=True)
    torch.save(checkpoint['state_dict'], tmp_path / 'bare.pth')
    assert 'is (4, 16), but (5, 16)' in fails(config, 'bare.pth')
    lacking = {'state_dict': {}, 'meta': {'cfg': config.read_text()}}
    lacking['state_dict']['x'] = torch.zeros(1)
    torch.save(lacking, tmp_path / 'lacking.pth')
    assert 'lacks' in fails(config, 'lacking.pth')

    content = json.loads((data / 'train.json').read_text())
    content['categories'][1]['name'] = 'triangle'
    (tmp_path / 'other.json').write_text(json.dumps(content))
    other = f'train_dataloader.dataset.ann_file={tmp_path}/other.json'
    line = fails(config, work_dir, '--cfg-options', other)
    assert "class 1 is 'square'" in line and "'triangle' in the data" in line

    one_stage = Config.fromfile(config)
    one_stage.model.type = 'RPN'
    del one_stage.model.roi_head
    one_stage.model.train_cfg.pop('rcnn')
    one_stage.model.train_cfg.pop('rpn_proposal')
    one_stage.model.test_cfg.pop('rcnn')
    one_stage.dump(tmp_path / 'rpn.py')
    assert 'RPN has no RoI head' in fails('rpn.py', 'bare.pth')

    dense = Config.fromfile(config)
    dense.model = dict(
        type='RetinaNet',
        backbone=dense.model.backbone,
        neck=dense.model.neck,
        bbox_head=dict(
            type='RetinaHead', num_classes=C, in_channels=16, feat_channels=16
        ),
    )
    dense.dump(tmp_path / 'dense.py')
    assert 'RetinaNet has no RoI head' in fails(
        'dense.py', 'bare.pth', '--proposals'
    )

    checkpoint = torch.load(work_dir / 'epoch_1.pth', weights_only=True)
    torch.save(checkpoint['state_dict'], tmp_path / 'softmax.pth')
    none = ('--cfg-options', 'model.test_cfg.rpn.max_per_img=0')
    assert 'made no proposals' in fails(
        config, 'softmax.pth', '--proposals', *none
    )
    edges = ('--bin-edges', 100, 10)
    assert '--bin-edges: bin_edges is [100.0, 10.0]' in fails(
        config, work_dir, '--proposals', *edges
    )
    assert 'add --proposals' in fails(config, work_dir, *edges)

    process = call_tool(TOOL, config, work_dir, '--split', 'x', '--out', 'o')
    assert process.returncode == 2
    assert 'argument --split: invalid choice' in process.stderr
