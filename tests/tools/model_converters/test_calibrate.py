"""longtail calibrate, on detectors with random classifiers."""

import json
import math

import pytest
import torch
from classifier_files import (
    C,
    check_refused,
    check_test,
    choice_in,
    load_model,
    rows_of,
)
from mmdet.registry import DATASETS
from tiny import make_data, write_config
from tool_runs import run_tool

from mmdet_longtail.apis.calibrate import (
    METHODS,
    calibrate,
    check_method,
    measure_logits,
)
from mmdet_longtail.apis.held_out import HeldOutSplit
from mmdet_longtail.apis.trained_detector import TrainedDetector, load_batches
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import tau_norm_scale
from mmdet_longtail.models.utils.bbox_heads import (
    classifier_heads,
    predicted_probs,
)
from mmdet_longtail.models.utils.classifier_replay import predict_each

TOOL = 'model_converters/edit_classifier.py'
# tests/helpers/tiny.py: class c is in 8 - c of 8 images.
IMAGE_COUNT = [8, 7, 6, 5]


def call(call_tool, project, name, out, *options):
    return call_tool(
        TOOL, 'calibrate', f'{name}.py', f'{name}.pth', out, *options,
        cwd=project,
    )  # fmt: skip


def heads_of(config, checkpoint):
    return [*classifier_heads(load_model(config, checkpoint)[0]).values()]


def probs_of(head, x):
    return predicted_probs(head, head.fc_cls(x))


# -- what is written ---------------------------------------------------------


def test_a_search(project, tmp_path, call_tool):
    out = tmp_path / 'new' / 'norcal.pth'
    process = run_tool(
        TOOL, 'calibrate', 'softmax.py', 'softmax.pth', out,
        '--method', 'norcal', '--strength', 0.5, 2, '--held-out', 0.3,
        cwd=project,
    )  # fmt: skip
    assert 'AP on 2 held-out training images' in process.stdout
    assert 'Before and after: AP ' in process.stdout
    chosen = choice_in(process)
    assert chosen in (0, 0.5, 2)
    w, b = rows_of(project / 'softmax.pth')
    new_w, new_b = rows_of(out)
    assert torch.equal(new_w, w)
    expected = [b[c] - chosen * math.log(IMAGE_COUNT[c]) for c in range(C)]
    torch.testing.assert_close(new_b[:C], torch.stack(expected))
    assert torch.equal(new_b[C:], b[C:])
    assert sorted(path.name for path in out.parent.iterdir()) == [
        'norcal.png',
        'norcal.pth',
        'norcal.py',
    ]
    assert out.with_suffix('.png').read_bytes().startswith(b'\x89PNG')
    check_test(call_tool, out)


NAMES = ['softmax', 'cascade', 'eql', 'eqlv2', 'seesaw', 'bags', 'normed']


@pytest.mark.parametrize('name', NAMES)
def test_norcal_of_every_loss(name, project, tmp_path, call_tool):
    out = tmp_path / 'out.pth'
    options = ('--method', 'norcal', '--strength', 0.5)
    process = call(call_tool, project, name, out, *options)
    assert process.returncode == 0, process.stderr
    assert not out.with_suffix('.png').exists()  # Nothing was searched.
    before = heads_of(project / f'{name}.py', project / f'{name}.pth')
    after = heads_of(out.with_suffix('.py'), out)
    x = torch.randn(30, 16)
    for head, other in zip(before, after, strict=True):
        z = head.fc_cls(x)
        z[:, :C] -= 0.5 * torch.tensor(IMAGE_COUNT).log()
        torch.testing.assert_close(
            probs_of(other, x), predicted_probs(other, z)
        )
    check_test(call_tool, out)


@pytest.mark.parametrize('method', ['logit-adjustment', 'fracal', 'logn'])
@pytest.mark.parametrize('name', ['softmax', 'normed'])
def test_other_methods(name, method, project, tmp_path, call_tool):
    out = tmp_path / 'out.pth'
    options = ('--method', method, '--strength', 1)
    process = call(call_tool, project, name, out, *options)
    assert process.returncode == 0, process.stderr
    [before] = heads_of(project / f'{name}.py', project / f'{name}.pth')
    [after] = heads_of(out.with_suffix('.py'), out)
    x = torch.randn(30, 16)
    z, new_z = before.fc_cls(x), after.fc_cls(x)
    torch.testing.assert_close(new_z[:, C:], z[:, C:])
    # One scale and one shift per class, by two rows of features.
    s = (new_z[0] - new_z[1]) / (z[0] - z[1])
    d = new_z[0] - s * z[0]
    torch.testing.assert_close(new_z, s * z + d, rtol=1e-3, atol=1e-3)
    n = torch.tensor(IMAGE_COUNT).float()
    if method == 'logn':
        assert ((s[:C] - 1).abs() > 1e-3).all()
    else:
        torch.testing.assert_close(s, torch.ones(C + 1), rtol=0, atol=1e-3)
    if method == 'logit-adjustment':  # One box per image and class.
        expected = -(C * n / n.sum()).log()
    elif method == 'fracal':  # Each class is at one place: D = 1.
        expected = -(C * n / 8).log10()
    else:
        return
    torch.testing.assert_close(d[:C], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', ['softmax', 'eql', 'cascade'])
def test_logn_measures_the_sampled_rois(name, project):
    detector = TrainedDetector.load(
        project / f'{name}.py', project / f'{name}.pth'
    )
    split = HeldOutSplit(detector, 0.3, 0)
    model = detector.build()
    kept = [[] for _ in classifier_heads(model)]
    for logits, head in zip(kept, classifier_heads(model).values()):
        head.loss_cls.register_forward_pre_hook(
            lambda loss, args, logits=logits: logits.append(args[0][:, :C])
        )
    found = measure_logits(model, split)
    prior = math.log(0.001 / 0.999) if name == 'eql' else 0.0
    for logits, (mean, variance) in zip(kept, found, strict=True):
        z = torch.cat(logits).double() + prior
        # 6 images of at most 10 proposals, 16 samples and a box per class.
        assert 6 * 10 <= len(z) <= 6 * 16
        torch.testing.assert_close(mean, z.mean(0))
        torch.testing.assert_close(variance, z.var(0, unbiased=False))


def test_tau_norm(project, tmp_path, call_tool):
    for name in ('softmax', 'eql', 'bags', 'cascade'):
        out = tmp_path / f'{name}.pth'
        options = ('--method', 'tau-norm', '--strength', 1)
        process = call(call_tool, project, name, out, *options)
        assert process.returncode == 0, process.stderr
        for stage in ('.0', '.1') if name == 'cascade' else ('',):
            w, b = rows_of(project / f'{name}.pth', stage)
            new_w, new_b = rows_of(out, stage)
            m = w[:C].norm(dim=1).mean()
            torch.testing.assert_close(new_w[:C].norm(dim=1), m.expand(C))
            assert torch.equal(new_w[C:], w[C:])
            torch.testing.assert_close(new_b, b)


def test_a_work_directory(project, tmp_path, call_tool):
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'last_checkpoint').write_text(str(project / 'softmax.pth'))
    process = call_tool(
        TOOL, 'calibrate', 'softmax.py', run, tmp_path / 'out.pth',
        '--method', 'norcal', '--strength', 0.4,
        cwd=project,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    rows = rows_of(tmp_path / 'out.pth')
    assert not torch.equal(rows[1], rows_of(project / 'softmax.pth')[1])


def test_tau_norm_as_published(project, tmp_path, call_tool):
    out = tmp_path / 'tau.pth'
    process = call(
        call_tool, project, 'bare', out,
        '--method', 'tau-norm', '--strength', 1, '--as-published',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    w, _ = rows_of(project / 'bare.pth')
    new_w, _ = rows_of(out)
    torch.testing.assert_close(new_w[:C].norm(dim=1), torch.ones(C))
    assert torch.equal(new_w[C], w[C])


def test_tau_norm_select(project, tmp_path, call_tool):
    out = tmp_path / 'select.pth'
    process = call(
        call_tool, project, 'softmax', out,
        '--method', 'tau-norm', '--select', '--strength', 0, 2,
        '--fewer-than', 7,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    check_test(call_tool, out)
    w, b = rows_of(project / 'softmax.pth')
    assert torch.equal(rows_of(out)[0], w)
    chosen = choice_in(process)
    model, _ = load_model(out.with_suffix('.py'), out)
    loss = model.roi_head.bbox_head.loss_cls
    torch.testing.assert_close(loss.scale, tau_norm_scale(w[:C], chosen))
    torch.testing.assert_close(loss.bias, b[:C])
    assert loss.is_tail.tolist() == [0, 0, 1, 1]


def test_masks_stay(project, tmp_path, call_tool):
    """Calibration searches by boxes, and edits the classifier alone."""
    out = tmp_path / 'masks.pth'
    process = call(call_tool, project, 'masks', out, '--method', 'norcal')
    assert process.returncode == 0, process.stderr
    _, before = load_model(project / 'masks.py', project / 'masks.pth')
    model, after = load_model(out.with_suffix('.py'), out)
    assert model.roi_head.with_mask
    for name, weight in before['state_dict'].items():
        if 'fc_cls' not in name:
            assert torch.equal(after['state_dict'][name], weight), name
    check_test(call_tool, out)


# -- all strengths from one pass ---------------------------------------------


@pytest.mark.parametrize('name', ['softmax', 'cascade', 'seesaw'])
def test_a_replay_predicts_as_the_changed_detector(name, project):
    config = project / f'{name}.py'
    detector = TrainedDetector.load(config, project / f'{name}.pth')
    model = detector.build()
    heads = classifier_heads(model).values()
    trained = [head.fc_cls.bias.clone() for head in heads]

    def change(strength):
        for head, bias in zip(heads, trained):
            head.fc_cls.bias.copy_(bias)
            head.fc_cls.bias[1] += strength

    passes = []
    model.backbone.register_forward_hook(lambda *_: passes.append(1))
    loader = detector.config.val_dataloader
    dataset = DATASETS.build(loader.dataset)
    scores = set()
    for data in load_batches(dataset, loader, 'val'):
        found = [
            [sample.pred_instances.clone() for sample in samples]
            for samples in predict_each(model, data, [0, 1, 4], change)
        ]
        assert passes.pop() and not passes
        for strength, several in zip([0, 1, 4], found, strict=True):
            change(strength)
            expected = model.test_step(data)
            passes.clear()
            for own, sample in zip(several, expected, strict=True):
                for key in ('bboxes', 'scores', 'labels'):
                    torch.testing.assert_close(
                        own[key], sample.pred_instances[key]
                    )
                scores.add(own.scores.sum().item())
    assert len(scores) == 3 * len(dataset)


def test_the_same_seed_gives_the_same_file(project, tmp_path):
    found = []
    for name in ('a.pth', 'b.pth'):
        out = tmp_path / name
        calibrate(
            project / 'softmax.py', project / 'softmax.pth', out, 'logn', [1]
        )
        found.append(torch.cat([x.flatten() for x in rows_of(out)]))
    assert torch.equal(*found)


# -- bad input ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('name', 'options', 'words'),
    [
        (
            'eql',
            ['--method', 'fracal'],
            'fracal multiplies each probability',
        ),
        ('scaled', ['--method', 'norcal'], 'longtail fold first'),
        ('normed', ['--method', 'tau-norm'], 'all have the norm 1 already'),
        (
            'eql',
            ['--method', 'tau-norm', '--select'],
            '--select needs a softmax of 5',
        ),
        (
            'cascade',
            ['--method', 'tau-norm', '--select'],
            '--select needs the scores of one classifier',
        ),
        (
            'softmax',
            ['--method', 'logn', '--select'],
            '--method logn: --as-published and --select are variants of tau',
        ),
        (
            'softmax',
            ['--method', 'tau-norm', '--fewer-than', '10'],
            '--fewer-than: only --select has tail classes',
        ),
        (
            'softmax',
            ['--method', 'norcal', '--strength', '1', '-1'],
            'strength is -1.0, expected a number in [0, 100]',
        ),
        (
            'softmax',
            ['--method', 'norcal', '--strength', 'nan'],
            'strength is nan, expected',
        ),
    ],
)
def test_what_does_not_fit(name, options, words, project, tmp_path, call_tool):
    out = tmp_path / 'out.pth'
    process = call(call_tool, project, name, out, *options)
    check_refused(process, words, tmp_path)


@pytest.mark.parametrize(
    ('config', 'checkpoint', 'words'),
    [
        ('none.py', 'softmax.pth', 'none.py: no such config'),
        ('softmax.py', 'none.pth', 'none.pth: no such checkpoint'),
        ('softmax.py', 'softmax.py', 'not a checkpoint that can be read'),
    ],
)
def test_wrong_files(config, checkpoint, words, project, tmp_path, call_tool):
    process = call_tool(
        TOOL, 'calibrate', config, checkpoint, tmp_path / 'out.pth',
        '--method', 'norcal',
        cwd=project,
    )  # fmt: skip
    check_refused(process, words, tmp_path)


@pytest.mark.parametrize(
    'head',
    [
        dict(type='NearestClassMeanShared2FCBBoxHead'),
        dict(loss_cls=dict(type='TauNormSelectLoss', num_classes=C)),
    ],
)
def test_predictions_by_more_than_fc_cls(head, project):
    detector = TrainedDetector.load(
        project / 'softmax.py', project / 'softmax.pth'
    )
    bbox_head = detector.config.model.roi_head.bbox_head
    if 'loss_cls' in head:
        del bbox_head.loss_cls
    bbox_head.update(head)
    with pytest.raises(LongTailError, match='of fc_cls alone, expected Cross'):
        check_method(detector, 'norcal')


def test_infinite_weights_are_not_written(project, tmp_path):
    detector = TrainedDetector.load(
        project / 'softmax.py', project / 'softmax.pth'
    )
    model = detector.build()
    model.roi_head.bbox_head.fc_cls.weight.data[0, 0] = float('inf')
    with pytest.raises(LongTailError, match=r'fc_cls\.weight would be inf'):
        detector.save(tmp_path / 'out.pth', model)
    assert not [*tmp_path.iterdir()]


def test_nothing_is_overwritten(project, tmp_path, call_tool):
    options = ('--method', 'norcal')
    for name in ('out.pth', 'out.py', 'out.png'):
        path = tmp_path / name
        path.write_text('mine')
        process = call(
            call_tool, project, 'softmax', tmp_path / 'out.pth', *options
        )
        assert process.returncode == 1
        assert process.stderr == (
            f'error: {path}: exists already; remove it, or give another name\n'
        )
        assert path.read_text() == 'mine'
        path.unlink()
    process = call(call_tool, project, 'softmax', tmp_path / 'out', *options)
    check_refused(process, 'ends in .pth', tmp_path)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--method', 'norcal', '--held-out', '0'], 'not between 0 and 1'),
        (['--method', 'platt'], 'invalid choice'),
        ([], 'required: --method'),
    ],
)
def test_bad_options(options, words, call_tool):
    process = call_tool(TOOL, 'calibrate', 'a.py', 'a.pth', 'o.pth', *options)
    assert process.returncode == 2
    assert words in process.stderr.splitlines()[-1]


def test_sets_that_cannot_be_split(project, tmp_path, call_tool):
    def refuse(num_train, change, words):
        data = make_data(tmp_path / f'data_{num_train}', num_train)
        content = json.loads((data / 'train.json').read_text())
        change(content)
        (data / 'train.json').write_text(json.dumps(content))
        process = call_tool(
            TOOL, 'calibrate',
            write_config(tmp_path / 'few.py', data),
            project / 'softmax.pth',
            tmp_path / 'out.pth',
            '--method', 'norcal',
        )  # fmt: skip
        check_refused(process, words, tmp_path)

    refuse(1, lambda content: None, 'of its 1 images 0 would be held out')
    refuse(6, lambda content: content['annotations'].clear(), 'no box')


def test_every_method_is_tested():
    assert {*METHODS} == {
        'norcal', 'logit-adjustment', 'fracal', 'logn', 'tau-norm'
    }  # fmt: skip
