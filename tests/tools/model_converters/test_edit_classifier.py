"""Classifiers changed without training: class means, LWS."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from classifier_files import (
    HEAD,
    C,
    check_refused,
    check_test,
    choice_in,
    load_model,
    rows_of,
    save,
    scaled,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.runner.checkpoint import load_state_dict
from naive import softmax
from tiny import make_data, write_config

from mmdet_longtail.apis.held_out import hold_out
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.layers import ScaledLinear
from mmdet_longtail.models.roi_heads.bbox_heads import (
    nearest_class_mean_scores,
)
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.structures.annotations import Annotations

TOOL = 'model_converters/edit_classifier.py'
seeds = st.integers(0, 2**16)


def randn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(
        *shape, generator=generator, dtype=torch.float64
    )


# -- nearest class mean ------------------------------------------------------


def naive_nearest_class_mean(x, means, logits, temperature):
    def length(v):
        return math.sqrt(sum(a * a for a in v))

    known = [c for c in range(len(means)) if any(means[c])]
    cosines = {
        c: sum(a * b for a, b in zip(x, means[c]))
        / length(x)
        / length(means[c])
        for c in known
    }
    probs = softmax([temperature * cosine for cosine in cosines.values()])
    own = softmax(logits)
    p = [0.0] * len(means) + [own[-1]]
    for c, prob in zip(known, probs):
        p[c] = (1 - own[-1]) * prob
    return p


@given(seed=seeds, temperature=st.sampled_from([0.5, 10.0, 80.0]))
@settings(max_examples=20, deadline=None)
def test_nearest_class_mean_is_the_naive_loop(seed, temperature):
    x = randn(8, 5, seed=seed)
    means = randn(C, 5, seed=seed + 1)
    means[1] = 0
    logits = randn(8, C + 1, seed=seed + 2, scale=3.0)
    log_p = nearest_class_mean_scores(x, means, logits, temperature)
    expected = [
        naive_nearest_class_mean(a, means.tolist(), z, temperature)
        for a, z in zip(x.tolist(), logits.tolist())
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(log_p.exp(), expected)
    torch.testing.assert_close(log_p.softmax(1), expected)


@pytest.mark.parametrize('background', [-1e4, 1e4])
def test_nearest_class_mean_of_extreme_scores(background):
    logits = torch.zeros(3, C + 1)
    logits[:, -1] = background
    x = torch.tensor([[0.0, 0.0], [1e4, -1e4], [1.0, 0.0]])
    means = torch.tensor([[1.0, 0], [-1.0, 0], [0, 1.0], [0, 0]])
    probs = nearest_class_mean_scores(x, means, logits, 50.0).softmax(1)
    assert probs.isfinite().all()
    assert (probs[:, -1] == (1 if background > 0 else 0)).all()
    torch.testing.assert_close(probs.sum(1), torch.ones(3))
    assert (probs[:, 3] == 0).all()


def ncm_head(**overrides):
    torch.manual_seed(0)
    config = ConfigDict(
        type='NearestClassMeanShared2FCBBoxHead',
        in_channels=4,
        fc_out_channels=8,
        roi_feat_size=2,
        num_classes=C,
    )
    head = MODELS.build(config | overrides)
    head.class_means.normal_()
    return head


@pytest.mark.parametrize('feature', ['fc', 'conv'])
def test_head_looks_at_the_feature(feature):
    head = ncm_head(feature=feature, temperature=7.0)
    x = torch.randn(6, 4, 2, 2)
    first, second = head.shared_fcs
    before_relu = second(first(x.flatten(1)).relu())
    expected = before_relu if feature == 'fc' else x.flatten(1)
    for each in (head, copy.deepcopy(head)):
        cls_score, bbox_pred = each(x)
        torch.testing.assert_close(each.roi_feature, expected)
        assert bbox_pred.shape == (6, 4 * C)
        torch.testing.assert_close(
            cls_score,
            nearest_class_mean_scores(
                expected,
                head.class_means,
                head.fc_cls(before_relu.relu()),
                7.0,
            ),
        )
    assert head(x[:0])[0].shape == (0, C + 1)


@pytest.mark.parametrize(
    ('overrides', 'words'),
    [
        (dict(feature='mask'), "feature is 'mask'"),
        (dict(temperature=0.0), 'temperature is 0.0'),
        (
            dict(loss_cls=dict(type='EqualizationLoss', num_classes=C)),
            'makes 4 columns of 4 classes',
        ),
        (
            dict(
                type='NearestClassMeanConvFCBBoxHead',
                num_cls_fcs=1,
            ),
            'num_shared_fcs is 0',
        ),
    ],
)
def test_head_refuses(overrides, words):
    with pytest.raises(LongTailError, match=words):
        ncm_head(**overrides)


# -- learnable weight scaling ------------------------------------------------


def test_scaled_linear_is_the_naive_loop():
    layer = MODELS.build(
        dict(type='ScaledLinear', in_features=3, out_features=5)
    )
    assert layer.scale.tolist() == [1] * 5
    torch.nn.init.normal_(layer.scale)
    x = torch.randn(4, 3)
    w, s, b = (p.tolist() for p in (layer.weight, layer.scale, layer.bias))
    expected = [
        [s[c] * sum(p * q for p, q in zip(w[c], row)) + b[c] for c in range(5)]
        for row in x.tolist()
    ]
    torch.testing.assert_close(layer(x), torch.tensor(expected))
    without = ScaledLinear(3, 5, bias=False)
    torch.testing.assert_close(without(x), x @ without.weight.T)


def test_scaled_linear_loads_a_plain_one():
    plain = torch.nn.Linear(3, 5)
    layer = ScaledLinear(3, 5)
    torch.nn.init.normal_(layer.scale)
    own = copy.deepcopy(layer.state_dict())
    layer.load_state_dict(plain.state_dict())
    x = torch.randn(4, 3)
    torch.testing.assert_close(layer(x), plain(x))
    layer.load_state_dict(own)
    torch.testing.assert_close(layer.scale, own['scale'])
    # mmengine's way, inside a model.
    model = torch.nn.ModuleDict(dict(fc_cls=layer))
    weights = {f'fc_cls.{k}': v for k, v in plain.state_dict().items()}
    load_state_dict(model, weights, strict=True)
    torch.testing.assert_close(layer(x), plain(x))
    with pytest.raises(RuntimeError, match=r'weight.*scale'):
        layer.load_state_dict({'bias': plain.bias})


# -- what is held out --------------------------------------------------------


@given(
    seed=seeds,
    num_images=st.integers(2, 40),
    share=st.floats(0.05, 0.95),
)
@settings(max_examples=60, deadline=None)
def test_hold_out(seed, num_images, share):
    rng = np.random.default_rng(seed)
    num_boxes = int(rng.integers(0, 3 * num_images))
    annotations = Annotations(
        source='',
        class_names=tuple(map(str, range(8))),
        category_ids=tuple(range(8)),
        num_images=num_images,
        image_index=rng.integers(0, num_images, num_boxes),
        class_index=rng.integers(0, 8, num_boxes),
        dropped=np.zeros((8, 7), dtype=np.int64),
    )
    held = hold_out(annotations, share, seed)
    assert held.shape == (num_images,)
    assert np.array_equal(held, hold_out(annotations, share, seed))
    images = [
        set(annotations.image_index[annotations.class_index == c].tolist())
        for c in range(8)
    ]
    shared = {
        image
        for image in range(num_images)
        if sum(image in each for each in images) > 1
    }
    for each in images:
        # Nothing stands in the way of a class with images of its own.
        if len(each) >= 2 and not each & shared:
            assert 0 < held[list(each)].sum() < len(each)
    forced = sum(min(len(each), 2) for each in images)
    assert held.sum() <= max(round(share * num_images), forced)
    if num_images > 30 and num_boxes == 0:
        assert held.sum() == round(share * num_images)


def test_other_seeds_hold_out_other_images():
    empty = np.array([], dtype=np.int64)
    annotations = Annotations(
        '', ('a',), (1,), 100, empty, empty, empty.astype(bool)
    )
    first, second = (hold_out(annotations, 0.2, seed) for seed in (0, 1))
    assert first.sum() == second.sum() == 20
    assert (first != second).any()


# -- the tools ---------------------------------------------------------------


def naive_means(model, config, feature):
    """Means over the boxes of a file, one box at a time."""
    settings = Config.fromfile(config).train_dataloader.dataset
    dataset = DATASETS.build(settings)
    head = model.roi_head.bbox_head
    sums = [0.0] * C
    for data in dataset:
        batch = dict(
            inputs=[data['inputs']], data_samples=[data['data_samples']]
        )
        batch = model.data_preprocessor(batch)
        x = model.extract_feat(batch['inputs'])
        truth = data['data_samples'].gt_instances
        for box, label in zip(truth.bboxes.tensor, truth.labels.tolist()):
            roi = torch.tensor([[0.0, *box.tolist()]])
            flat = model.roi_head.bbox_roi_extractor(x, roi).flatten(1)
            if feature == 'fc':
                first, second = head.shared_fcs
                flat = second(first(flat).relu())
            sums[label] = sums[label] + flat[0]
    return torch.nn.functional.normalize(torch.stack(sums))


@pytest.mark.parametrize('feature', ['fc', 'conv'])
def test_nearest_class_mean(feature, project, tmp_path, call_tool):
    out = tmp_path / 'ncm.pth'
    temperatures = (5, 20) if feature == 'fc' else (30,)
    process = call_tool(
        TOOL, 'nearest-class-mean',
        'softmax.py', 'softmax.pth', out,
        '--feature', feature, '--temperature', *temperatures,
        cwd=project,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    model, _ = load_model(out.with_suffix('.py'), out)
    head = model.roi_head.bbox_head
    with torch.no_grad():
        expected = naive_means(model, project / 'softmax.py', feature)
    torch.testing.assert_close(
        head.class_means, expected, rtol=1e-4, atol=1e-5
    )
    if feature == 'fc':
        chosen = choice_in(process)
        assert head.temperature == chosen
        torch.testing.assert_close(
            rows_of(out)[0], rows_of(project / 'softmax.pth')[0]
        )
        check_test(call_tool, out)
    else:
        assert head.temperature == 30


def test_nearest_class_mean_of_a_cascade(project, tmp_path, call_tool):
    out = tmp_path / 'ncm.pth'
    process = call_tool(
        TOOL, 'nearest-class-mean',
        'cascade.py', 'cascade.pth', out,
        '--temperature', 10,
        cwd=project,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    model, _ = load_model(out.with_suffix('.py'), out)
    means = [head.class_means for head in model.roi_head.bbox_head]
    assert all(mean.any(1).all() for mean in means)
    assert not torch.equal(*means)
    check_test(call_tool, out)


@pytest.mark.parametrize('name', ['scaled', 'scaled_cascade'])
def test_folding_predicts_the_same(name, project, tmp_path, call_tool):
    out = tmp_path / 'folded.pth'
    process = call_tool(
        TOOL, 'fold',
        f'{name}.py', f'{name}.pth', out,
        cwd=project,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    model, _ = load_model(project / f'{name}.py', project / f'{name}.pth')
    folded, _ = load_model(out.with_suffix('.py'), out)
    assert 'ScaledLinear' not in out.with_suffix('.py').read_text()
    heads = zip(
        classifier_heads(model).values(), classifier_heads(folded).values()
    )
    roi_feature = torch.randn(50, 16, 3, 3)
    for head, other in heads:
        assert type(other.fc_cls) is torch.nn.Linear
        torch.testing.assert_close(
            head(roi_feature)[0].softmax(1),
            other(roi_feature)[0].softmax(1),
            rtol=0,
            atol=1e-6,
        )
    check_test(call_tool, out)


def test_only_the_scales_train(project, tmp_path, call_tool):
    def stage(config):
        scaled(config)
        config.load_from = str(project / 'softmax.pth')
        config.default_hooks.train_only = dict(
            type='TrainOnlyHook', trainable=[f'{HEAD}.fc_cls.scale']
        )
        config.default_hooks.class_statistics = dict(
            type='ClassStatisticsHook'
        )
        sampler = dict(type='ClassAwareImageSampler')
        config.train_dataloader.sampler = sampler

    save(tmp_path, 'lws', project / 'shapes', stage)
    process = call_tool('train.py', 'lws.py', '--work-dir', 'lws')
    assert process.returncode == 0, process.stderr
    checkpoint = tmp_path / 'lws' / 'epoch_1.pth'
    trained = torch.load(checkpoint, weights_only=True)['state_dict']
    before = torch.load(project / 'softmax.pth', weights_only=True)
    changed = {
        name
        for name, value in trained.items()
        if not torch.equal(value, before['state_dict'].get(name, value))
    }
    assert changed == set()
    scale = trained[f'{HEAD}.fc_cls.scale']
    assert (scale != 1).any() and torch.allclose(
        scale, torch.ones(C + 1), atol=0.1
    )
    process = call_tool(
        TOOL,
        'fold',
        'lws.py',
        checkpoint,
        tmp_path / 'out.pth',
    )
    assert process.returncode == 0, process.stderr
    torch.testing.assert_close(
        rows_of(tmp_path / 'out.pth')[0],
        rows_of(project / 'softmax.pth')[0] * scale[:, None],
    )


# -- bad input ---------------------------------------------------------------


@pytest.mark.parametrize(
    ('command', 'arguments', 'words'),
    [
        (
            'nearest-class-mean',
            ['softmax.py', 'softmax.pth', '--temperature', '0'],
            'temperature is 0.0, expected a number in (0, inf)',
        ),
        (
            'nearest-class-mean',
            ['eql.py', 'eql.pth'],
            'has 4 columns for EqualizationLoss, expected a softmax of 5',
        ),
        (
            'nearest-class-mean',
            ['scaled.py', 'scaled.pth'],
            'longtail fold first',
        ),
        (
            'fold',
            ['softmax.py', 'softmax.pth'],
            'there are no scales to fold',
        ),
        (
            'fold',
            ['scaled.py', 'softmax.pth', '--cfg-options', 'train_dataloader='],
            'has no train_dataloader',
        ),
    ],
)
def test_bad_input(command, arguments, words, project, tmp_path, call_tool):
    config, checkpoint, *options = arguments
    out = tmp_path / 'out.pth'
    process = call_tool(
        TOOL, command, config, checkpoint, out, *options, cwd=project
    )
    check_refused(process, words, tmp_path)


def test_checkpoint_of_another_class_count(project, tmp_path, call_tool):
    data = make_data(tmp_path / 'other', 3, class_names=('a', 'b'))
    config = write_config(tmp_path / 'other.py', data, num_classes=2)
    for name, words in (
        ('softmax', 'has 4 classes, but the data has 2'),
        ('bare', 'has 4 classes, but the data has 2'),
    ):
        process = call_tool(
            TOOL,
            'nearest-class-mean',
            config,
            project / f'{name}.pth',
            tmp_path / 'out.pth',
        )
        check_refused(process, words, tmp_path)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['--held-out', '1'], 'between 0 and 1'),
        (['--feature', 'mask'], 'invalid choice'),
    ],
)
def test_bad_options(options, words, tmp_path, call_tool):
    arguments = ('a.py', 'a.pth', 'out.pth', *options)
    process = call_tool(TOOL, 'nearest-class-mean', *arguments)
    assert process.returncode == 2
    assert words in process.stderr.splitlines()[-1]
