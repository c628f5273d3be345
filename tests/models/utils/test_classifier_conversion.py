"""Converted classifiers in mmdet's head, and the tool on a real checkpoint."""

import json
import math
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny import CLASS_NAMES, make_data, write_config
from tool_runs import run_tool

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils import classifier_conversion
from mmdet_longtail.structures import Checkpoint, ClassStatistics

FEATURES = 5
SOFTMAX = dict(type='CrossEntropyLoss', use_sigmoid=False)
EQL = dict(type='EqualizationLoss', prior_prob=0.01)
BAGS = dict(type='BalancedGroupSoftmaxLoss', bin_edges=(10, 100))
WITHOUT_OTHERS = dict(BAGS, type='BalancedGroupSoftmaxWithoutOthersLoss')
WITHOUT_BACKGROUND = dict(
    BAGS, type='BalancedGroupSoftmaxWithoutBackgroundLoss'
)
SEESAW = dict(type='SeesawLoss')
SYNC_SEESAW = dict(type='SyncSeesawLoss')
EQLV2 = dict(type='EqualizationLossV2', prior_prob=0.01)
ECM = dict(type='EffectiveClassMarginLoss')
COUNTS = (3, 200, 20, 7, 1000, 50, 10)
C = len(COUNTS)
TOOL = ('model_converters/edit_classifier.py', 'convert')

init_default_scope('mmdet')


def statistics_of(counts, names=None):
    counts = np.array(counts)
    return ClassStatistics(
        class_names=names or tuple(f'class {c}' for c in range(len(counts))),
        image_count=np.minimum(counts, 1),
        instance_count=counts,
        num_images=1000,
        num_annotated_images=1,
    )


def config_of(loss_cls, num_classes=C, num_stages=None, **settings):
    """A config with what a conversion reads."""
    if loss_cls['type'] != 'CrossEntropyLoss':
        loss_cls = dict(loss_cls, num_classes=num_classes)
    head = dict(
        type='Shared2FCBBoxHead',
        in_channels=2,
        fc_out_channels=FEATURES,
        roi_feat_size=1,
        num_classes=num_classes,
        loss_cls=loss_cls,
        **settings,
    )
    roi_head = dict(bbox_head=head)
    if num_stages is not None:
        roi_head = dict(bbox_head=[head] * num_stages, num_stages=num_stages)
    return Config(dict(model=dict(type='FasterRCNN', roi_head=roi_head)))


def head_of(config, stage=None):
    head = config.model.roi_head.bbox_head
    return MODELS.build(head if stage is None else head[stage])


def checkpoint_of(config, statistics=None, seed=0, scale=0.7, with_cfg=True):
    """What a training of this config would have left."""
    generator = torch.Generator().manual_seed(seed)
    stages = config.model.roi_head.get('num_stages')
    weights = {'backbone.conv1.weight': torch.zeros(1)}
    for stage in [None] if stages is None else range(stages):
        head = head_of(config, stage)
        if statistics and hasattr(head.loss_cls, 'set_class_statistics'):
            head.loss_cls.set_class_statistics(statistics)
        layer = 'roi_head.bbox_head' + ('' if stage is None else f'.{stage}')
        for name, value in head.state_dict().items():
            if value.is_floating_point():
                value = scale * torch.randn(value.shape, generator=generator)
            weights[f'{layer}.{name}'] = value
    checkpoint = dict(
        state_dict=weights,
        meta=dict(epoch=3),
        optimizer=dict(state={}),
        message_hub={},
    )
    if with_cfg:
        checkpoint['meta']['cfg'] = config.pretty_text
    if statistics is not None:
        names = statistics.class_names
        checkpoint['meta']['dataset_meta'] = dict(classes=names)
        checkpoint['class_statistics'] = statistics.to_dict()
    return checkpoint


def convert_checkpoint(checkpoint, *args, **kwargs):
    """Convert the content of a checkpoint file."""
    if isinstance(checkpoint, dict):
        checkpoint = Checkpoint.of(checkpoint)
    return classifier_conversion.convert_checkpoint(
        checkpoint, *args, **kwargs
    )


def weights_of(checkpoint):
    if isinstance(checkpoint, dict):
        return checkpoint['state_dict']
    return checkpoint.weights


def columns_of(checkpoint, layer='roi_head.bbox_head'):
    weights = weights_of(checkpoint)
    return torch.cat(
        [
            weights[f'{layer}.fc_cls.weight'],
            weights[f'{layer}.fc_cls.bias'][:, None],
        ],
        1,
    )


def predictions(checkpoint, config, layer='roi_head.bbox_head'):
    """Probabilities of random RoIs by mmdet's head, strictly loaded."""
    head = head_of(config, int(layer[-1]) if layer[-1].isdigit() else None)
    head.load_state_dict(
        {
            name.removeprefix(f'{layer}.'): value
            for name, value in weights_of(checkpoint).items()
            if name.startswith(f'{layer}.')
        }
    )
    rois = torch.randn(40, 2, 1, 1, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        scores = head(rois)[0]
    if head.custom_activation:
        return head.loss_cls.get_activation(scores)
    return scores.softmax(1)


def assert_close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


# -- rules -------------------------------------------------------------------


@settings(max_examples=8, deadline=None)
@given(
    counts=st.lists(st.integers(1, 999), min_size=1, max_size=9),
    edges=st.lists(
        st.integers(1, 999), min_size=1, max_size=3, unique=True
    ).map(sorted),
    prior=st.floats(1e-4, 0.9),
    seed=st.integers(0, 99),
)
def test_softmax_comes_back_from_everywhere(counts, edges, prior, seed):
    num_classes = len(counts)
    statistics = statistics_of(counts)
    softmax = config_of(SOFTMAX, num_classes)
    checkpoint = checkpoint_of(softmax, statistics, seed)
    before = predictions(checkpoint, softmax)
    for loss_cls in (
        dict(EQL, prior_prob=prior),
        dict(type='RoIFocalLoss', prior_prob=prior),
        dict(type='FederatedLoss', prior_prob=prior),
        dict(type='DropLoss', prior_prob=prior),
        dict(type='GumbelDropLoss', prior_prob=prior),
        dict(type='GumbelEqualizationLoss', prior_prob=None),
        dict(type='SoftmaxEqualizationLoss'),
        dict(BAGS, bin_edges=edges),
        dict(WITHOUT_OTHERS, bin_edges=edges),
        dict(WITHOUT_BACKGROUND, bin_edges=edges),
        SEESAW,
        SYNC_SEESAW,
        dict(EQLV2, prior_prob=prior),
        ECM,
        dict(type='BalancedSoftmaxLoss'),
        dict(type='EquilibriumLoss'),
    ):
        config = config_of(loss_cls, num_classes)
        there = convert_checkpoint(checkpoint, config)
        back = convert_checkpoint(there, softmax)
        assert_close(predictions(back, softmax), before)


@settings(max_examples=8, deadline=None)
@given(
    num_classes=st.integers(1, 9),
    prior=st.none() | st.floats(1e-4, 0.9),
    other_prior=st.none() | st.floats(1e-4, 0.9),
)
def test_a_prior_goes_in_and_out_of_the_bias(num_classes, prior, other_prior):
    statistics = statistics_of([5] * num_classes)
    ours = config_of(dict(EQL, prior_prob=prior), num_classes)
    theirs = config_of(
        dict(type='RoIFocalLoss', prior_prob=other_prior), num_classes
    )
    checkpoint = checkpoint_of(ours, statistics)
    converted = convert_checkpoint(checkpoint, theirs)
    assert_close(predictions(converted, theirs), predictions(checkpoint, ours))


def test_eql_as_released_has_the_prior_in_the_bias():
    statistics = statistics_of(COUNTS)
    config = config_of(EQL)
    released = checkpoint_of(config_of(dict(EQL, prior_prob=None)), statistics)
    released['meta'].pop('cfg')
    scores = columns_of(released)
    for options in ({}, dict(source='sigmoid')):
        converted = convert_checkpoint(released, config, **options)
        shift = scores - columns_of(converted)
        assert_close(shift[:, :-1], torch.zeros(C, FEATURES))
        assert_close(shift[:, -1], torch.full((C,), math.log(0.01 / 0.99)))
        assert_close(
            predictions(converted, config),
            predictions(released, config_of(dict(EQL, prior_prob=None))),
        )


def test_softmax_to_eql_is_each_class_against_background():
    softmax, eql = config_of(SOFTMAX), config_of(EQL)
    checkpoint = checkpoint_of(softmax, statistics_of(COUNTS))
    before = predictions(checkpoint, softmax).double()
    after = predictions(convert_checkpoint(checkpoint, eql), eql)
    for p, q in zip(before, after):
        for c in range(C):
            expected = p[c] / (p[c] + p[-1])
            assert float(q[c]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize('loss_cls', [EQLV2, ECM])
def test_softmax_to_eqlv2_halves_the_scores_of_eql(loss_cls):
    softmax, config, eql = map(config_of, (SOFTMAX, loss_cls, EQL))
    checkpoint = checkpoint_of(softmax, statistics_of(COUNTS))
    found = predictions(convert_checkpoint(checkpoint, config), config)
    expected = predictions(convert_checkpoint(checkpoint, eql), eql)
    assert_close(2 * found[:, :-1], expected[:, :-1])
    assert_close(found[:, -1], torch.full((40,), 0.5))


def test_eql_keeps_the_sigmoids_of_eqlv2():
    config, eql = config_of(EQLV2), config_of(dict(EQL, prior_prob=0.2))
    checkpoint = checkpoint_of(config, statistics_of(COUNTS))
    p = predictions(checkpoint, config)
    found = predictions(convert_checkpoint(checkpoint, eql), eql)
    assert_close(found[:, :-1], p[:, :-1] / (1 - p[:, -1:]))


@pytest.mark.parametrize('loss_type', ['EQLv2', 'EffectiveClassMarginLoss'])
def test_eqlv2_as_released_has_the_prior_in_the_bias(loss_type):
    statistics = statistics_of(COUNTS)
    without_prior = config_of(dict(EQLV2, prior_prob=None))
    released = checkpoint_of(without_prior, statistics)
    expected = predictions(released, without_prior)
    released['meta']['cfg'] = config_text(loss_type)
    for source in ('auto', 'eqlv2'):
        found = convert_checkpoint(released, config_of(EQLV2), source)
        assert_close(predictions(found, config_of(EQLV2)), expected)


def test_released_loce_is_a_softmax():
    checkpoint = checkpoint_of(config_of(SOFTMAX), statistics_of(COUNTS))
    checkpoint['meta']['cfg'] = config_text(
        'EquilibriumLoss', 'LoceShared2FCBBoxHead'
    )
    config = config_of(dict(type='EquilibriumLoss'))
    converted = convert_checkpoint(checkpoint, config)
    assert torch.equal(columns_of(converted), columns_of(checkpoint))


@pytest.mark.parametrize(
    ('source', 'target'),
    [
        (SEESAW, SYNC_SEESAW),
        (SYNC_SEESAW, SEESAW),
        (dict(type='EQLV2Loss'), dict(EQLV2, prior_prob=None)),
        (dict(type='EQLV2Loss'), EQLV2),
    ],
)
def test_losses_of_mmdet_keep_columns_and_state(source, target):
    checkpoint = checkpoint_of(config_of(source), statistics_of(COUNTS))
    converted = convert_checkpoint(checkpoint, config_of(target))
    prior_prob = target.get('prior_prob')
    shift = torch.zeros(FEATURES + 1)
    if prior_prob is not None:
        shift[-1] = math.log(prior_prob / (1 - prior_prob))
    assert_close(columns_of(converted) + shift, columns_of(checkpoint))
    if target is SEESAW:
        return
    before = checkpoint['state_dict']
    after = converted.weights
    names = [name for name in before if 'loss_cls.' in name]
    assert names == [name for name in after if 'loss_cls.' in name] != []
    for name in names:
        assert torch.equal(after[name], before[name])


@pytest.mark.parametrize('prior', [None, 0.2])
def test_softmax_to_gumbel_keeps_the_order_and_two_probabilities(prior):
    """p / (p + p_background), of 1/2 and of the released code's prior."""
    gumbel = dict(type='GumbelDropLoss', prior_prob=prior)
    softmax, gumbel = config_of(SOFTMAX), config_of(gumbel)
    checkpoint = checkpoint_of(softmax, statistics_of(COUNTS), scale=2.0)
    weight = checkpoint['state_dict']['roi_head.bbox_head.fc_cls.weight']
    bias = checkpoint['state_dict']['roi_head.bbox_head.fc_cls.bias']
    low = math.exp(-math.exp(2))
    for c, p in ((0, 0.5), (1, low)):
        weight[c] = weight[-1]
        bias[c] = bias[-1] + math.log(p / (1 - p))
    before = predictions(checkpoint, softmax).double()
    after = predictions(convert_checkpoint(checkpoint, gumbel), gumbel)
    assert after[:, 0].tolist() == pytest.approx([0.5] * len(after))
    assert after[:, 1].tolist() == pytest.approx([low] * len(after), rel=1e-4)
    logits = (before[:, :-1] / before[:, -1:]).log().flatten()
    order = logits.argsort()
    assert (after[:, :-1].flatten()[order].diff() >= 0).all()
    # The logits of all but impossible classes stay where they can be trained.
    trained = (logits > -12) & (logits < 12)
    z = -(-after[:, :-1].double().log()).log().flatten()
    assert trained.sum() > 100 and (z[trained] > -4).all()


@pytest.mark.parametrize(
    ('activation', 'source'), [('gumbel', 'gumbel'), ('sigmoid', 'sigmoid')]
)
def test_the_config_of_gol_is_understood(activation, source):
    statistics = statistics_of(COUNTS)
    config = config_of(dict(type='GumbelDropLoss', prior_prob=0.01))
    text = config_text('DropLoss')
    for old in (text, text.replace('DropLoss', 'EQL')):
        old = old.replace(
            "'use_sigmoid': True", f"'use_classif': '{activation}'"
        )
        checkpoint = checkpoint_of(config, statistics)
        checkpoint['meta'].update(cfg=old)
        auto = convert_checkpoint(checkpoint, config)
        named = convert_checkpoint(checkpoint, config, source)
        assert torch.equal(columns_of(auto), columns_of(named))
    if source == 'gumbel':
        shift = columns_of(checkpoint) - columns_of(auto)
        assert_close(shift[:, :-1], torch.zeros(C, FEATURES))
        prior = -math.log(-math.log(0.01))
        assert_close(shift[:, -1], torch.full((C,), prior))
    checkpoint['meta'].update(cfg=old.replace(activation, 'cls_rel'))
    with pytest.raises(LongTailError, match=r'is not known; .* --source'):
        convert_checkpoint(checkpoint, config)


def test_seesaw_has_the_columns_of_its_activation():
    loss = MODELS.build(dict(SEESAW, num_classes=C))
    layout = classifier_conversion.layout_of(loss, C)
    block = layout.split(20 * torch.eye(C + 2))
    background = loss.get_activation(block['background'].float())
    assert background.argmax(1).tolist() == [C]
    classes = (block['classes'] + block['foreground']).float()
    assert loss.get_activation(classes).argmax(1).tolist() == [*range(C)]


def test_softmax_to_bags_is_each_bin_against_background():
    softmax, bags = config_of(SOFTMAX), config_of(BAGS)
    statistics = statistics_of(COUNTS)
    bins = statistics.bin_index(BAGS['bin_edges'])
    checkpoint = checkpoint_of(softmax, statistics)
    before = predictions(checkpoint, softmax).double()
    after = predictions(convert_checkpoint(checkpoint, bags), bags)
    for p, q in zip(before, after):
        assert float(q[-1]) == pytest.approx(0.5, abs=1e-6)
        for c in range(C):
            in_bin = sum(p[k] for k in range(C) if bins[k] == bins[c])
            expected = 0.5 * p[c] / (in_bin + p[-1])
            assert float(q[c]) == pytest.approx(float(expected), abs=1e-6)


def test_softmax_to_bags_ranks_detections_much_as_before():
    # A detector's softmax: background is likely, others are not.
    softmax, bags = config_of(SOFTMAX), config_of(BAGS)
    checkpoint = checkpoint_of(softmax, statistics_of(COUNTS), scale=1.0)
    checkpoint['state_dict']['roi_head.bbox_head.fc_cls.bias'][-1] += 5
    before = predictions(checkpoint, softmax)[:, :-1]
    after = predictions(convert_checkpoint(checkpoint, bags), bags)[:, :-1]
    ranks = [p.flatten().argsort().argsort().double() for p in (before, after)]
    assert torch.corrcoef(torch.stack(ranks))[0, 1] > 0.99


def test_bags_to_softmax_by_the_rule():
    bags, softmax = config_of(BAGS), config_of(SOFTMAX)
    statistics = statistics_of(COUNTS)
    bins = statistics.bin_index(BAGS['bin_edges'])
    checkpoint = checkpoint_of(bags, statistics)
    z = columns_of(checkpoint).double()
    found = columns_of(convert_checkpoint(checkpoint, softmax))
    for c in range(C):
        others, foreground = z[C + bins[c]], z[-2]
        assert_close(found[c].double(), z[c] + foreground - others)
    assert_close(found[-1].double(), z[-1])


@pytest.mark.parametrize(
    'loss_cls',
    [
        *(BAGS, WITHOUT_OTHERS, WITHOUT_BACKGROUND, EQL, SOFTMAX),
        *(EQLV2, ECM, SYNC_SEESAW),
    ],
)
def test_the_same_layout_is_left_alone(loss_cls):
    config = config_of(loss_cls)
    checkpoint = checkpoint_of(config, statistics_of(COUNTS))
    converted = convert_checkpoint(checkpoint, config)
    assert torch.equal(columns_of(converted), columns_of(checkpoint))


@pytest.mark.parametrize('loss_cls', [WITHOUT_OTHERS, WITHOUT_BACKGROUND])
def test_variants_share_what_both_have(loss_cls):
    statistics = statistics_of(COUNTS)
    checkpoint = checkpoint_of(config_of(BAGS), statistics)
    z = columns_of(checkpoint)
    found = columns_of(convert_checkpoint(checkpoint, config_of(loss_cls)))
    last = z[-2:] if loss_cls is WITHOUT_OTHERS else z[C:-2]
    assert torch.equal(found, torch.cat([z[:C], last]))


def test_other_bins_start_from_a_softmax():
    statistics = statistics_of(COUNTS)
    two_bins = config_of(dict(BAGS, bin_edges=(100,)))
    checkpoint = checkpoint_of(config_of(BAGS), statistics)
    by_softmax = convert_checkpoint(checkpoint, config_of(SOFTMAX))
    torch.testing.assert_close(
        columns_of(convert_checkpoint(checkpoint, two_bins)),
        columns_of(convert_checkpoint(by_softmax, two_bins)),
    )


def test_every_stage_of_a_cascade():
    softmax = config_of(SOFTMAX, num_stages=3)
    bags = config_of(BAGS, num_stages=3)
    checkpoint = checkpoint_of(softmax, statistics_of(COUNTS))
    there = convert_checkpoint(checkpoint, bags)
    back = convert_checkpoint(there, softmax)
    for stage in range(3):
        layer = f'roi_head.bbox_head.{stage}'
        assert len(columns_of(there, layer)) == C + 3 + 2
        assert_close(
            predictions(back, softmax, layer),
            predictions(checkpoint, softmax, layer),
        )


# -- layouts of other repositories -------------------------------------------


def by_bin(columns, bins, num_bins, background_first):
    """Our columns as the others lay them out, by loops."""
    groups = []
    for g in range(num_bins):
        groups.append(columns[C + g])
        for c in range(C):
            if bins[c] == g:
                groups.append(columns[c])
    foreground, background = columns[-2], columns[-1]
    if background_first:
        return torch.stack([background, foreground, *groups])
    return torch.stack([*groups, foreground, background])


def naive_probs(z, bins, num_bins, background_first):
    """Probabilities by walking through their columns."""
    z = [math.exp(x) for x in z]
    if background_first:
        background, foreground, z = z[0], z[1], z[2:]
    else:
        z, (foreground, background) = z[:-2], z[-2:]
    p_foreground = foreground / (foreground + background)
    probs = [0.0] * (C + 1)
    for g in range(num_bins):
        classes = [c for c in range(C) if bins[c] == g]
        group, z = z[: len(classes) + 1], z[len(classes) + 1 :]
        for c, value in zip(classes, group[1:]):
            probs[c] = p_foreground * value / sum(group)
    probs[C] = 1 - p_foreground
    return probs


@pytest.mark.parametrize('source', ['bags-eqlv2', 'bags-original'])
@pytest.mark.parametrize('edges', [(10, 100), (1, 10, 100, 2000)])
def test_bags_of_others_is_a_permutation(source, edges):
    statistics = statistics_of(COUNTS)
    config = config_of(dict(BAGS, bin_edges=edges))
    G = len(edges) + 1
    bins = statistics.bin_index(edges)
    checkpoint = checkpoint_of(config, statistics)
    ours = columns_of(checkpoint)
    theirs = by_bin(ours, bins, G, source == 'bags-original')
    weights = checkpoint['state_dict']
    weights['roi_head.bbox_head.fc_cls.weight'] = theirs[:, :-1]
    weights['roi_head.bbox_head.fc_cls.bias'] = theirs[:, -1]
    for name in [name for name in weights if 'loss_cls' in name]:
        del weights[name]
    checkpoint.pop('class_statistics')
    converted = convert_checkpoint(checkpoint, config, source, statistics)
    assert torch.equal(columns_of(converted), ours)

    features = torch.randn(20, FEATURES + 1)
    loss = head_of(config).loss_cls
    loss.set_class_statistics(statistics)
    found = loss.get_activation(features @ columns_of(converted).T)
    for row, probs in zip(features @ theirs.T, found):
        expected = naive_probs(
            row.tolist(), bins, G, source == 'bags-original'
        )
        assert probs.tolist() == pytest.approx(expected, abs=1e-6)

    with pytest.raises(LongTailError, match='--class-statistics FILE'):
        convert_checkpoint(checkpoint, config, source)
    with pytest.raises(LongTailError, match='other bin_edges'):
        other = config_of(dict(BAGS, bin_edges=(50,)))
        convert_checkpoint(checkpoint, other, source, statistics)


def config_text(loss_type, head_type='Shared2FCBBoxHead', **settings):
    """A config of mmdet 2.x, whose loss is not registered here."""
    head = dict(type=head_type, num_classes=C, **settings)
    head['loss_cls'] = dict(type=loss_type, use_sigmoid=True)
    return f'model = dict(roi_head=dict(bbox_head={head!r}))\n'


@pytest.mark.parametrize(
    ('loss_type', 'expected'),
    [('EQL', C), ('GroupSoftmax', C + 3 + 2), ('EQLv2', C + 1)],
)
def test_the_config_of_eqlv2_is_understood(loss_type, expected):
    statistics = statistics_of(COUNTS)
    config = config_of(BAGS)
    columns = torch.randn(expected, FEATURES + 1)
    checkpoint = dict(
        state_dict={
            'roi_head.bbox_head.fc_cls.weight': columns[:, :-1],
            'roi_head.bbox_head.fc_cls.bias': columns[:, -1],
        },
        meta=dict(
            config=config_text(loss_type), CLASSES=statistics.class_names
        ),
    )
    auto = convert_checkpoint(checkpoint, config, 'auto', statistics)
    source = dict(EQL='sigmoid', GroupSoftmax='bags-eqlv2', EQLv2='eqlv2')
    source = source[loss_type]
    named = convert_checkpoint(checkpoint, config, source, statistics)
    assert torch.equal(columns_of(auto), columns_of(named))
    assert auto.classes == statistics.class_names


def as_mmdet1(weights, num_classes):
    """Give weights of today the names and channels of mmdet 1.x."""
    result = {}
    for name, value in weights.items():
        rows = list(value) if value.dim() else []
        if name.startswith('roi_head.'):
            name = name.removeprefix('roi_head.')
            if '.fc_cls.' in name:
                value = torch.stack([rows[-1], *rows[:-1]])
            elif '.fc_reg.' in name and len(rows) == 4 * num_classes:
                value = torch.cat([value[:4] * 0 + 7, value])
            elif '.conv_logits.' in name:
                value = torch.cat([value[:1] * 0 + 7, value])
        result[name] = value
    return result


MASK_HEAD = """
model.update(type='MaskRCNN')
model['roi_head'].update(
    mask_roi_extractor=model['roi_head']['bbox_roi_extractor'],
    mask_head=dict(
        type='FCNMaskHead', num_convs=1, in_channels=16, conv_out_channels=8,
        num_classes=4,
        loss_mask=dict(
            type='CrossEntropyLoss', use_mask=True, loss_weight=1.0)))
"""


@pytest.mark.parametrize('agnostic', [False, True])
def test_mmdet1_gets_the_names_and_channels_of_today(tmp_path, agnostic):
    path = write_config(tmp_path / 'config.py', tmp_path)
    path.write_text(path.read_text() + MASK_HEAD)
    config = Config.fromfile(path)
    config.model.roi_head.bbox_head.reg_class_agnostic = agnostic
    model = MODELS.build(config.model)
    # The state of a module follows what is loaded into the module.
    weights = {name: v.clone() for name, v in model.state_dict().items()}
    old = as_mmdet1(weights, 4)
    text = '/home/you/config.py\nmodel = dict(rpn_head=dict(), '
    text += 'bbox_head=dict(type="SharedFCBBoxHead", num_classes=5))\n'
    for meta in (
        dict(),
        dict(config=text, CLASSES=CLASS_NAMES, mmdet_version='1.0.0'),
    ):
        checkpoint = dict(state_dict=old, meta=meta)
        converted = convert_checkpoint(checkpoint, config).weights
        model.load_state_dict(converted, strict=True)
        for name, value in weights.items():
            assert torch.equal(converted[name], value), name


def test_original_bags_is_of_mmdet1():
    statistics = statistics_of(COUNTS)
    config = config_of(BAGS)
    checkpoint = checkpoint_of(config, statistics)
    bins = statistics.bin_index(BAGS['bin_edges'])
    ours = columns_of(checkpoint)
    theirs = by_bin(ours, bins, 3, background_first=True)
    text = config_text('CrossEntropyLoss', 'GSBBoxHeadWith0')
    text = text.replace(f'num_classes={C}', f'num_classes={C + 1}')
    old = dict(
        state_dict={
            'bbox_head.fc_cls.weight': theirs[:, :-1],
            'bbox_head.fc_cls.bias': theirs[:, -1],
        },
        meta=dict(
            config='original.py\nmodel = dict(rpn_head=dict(), bbox_head=dict('
            f"type='GSBBoxHeadWith0', num_classes={C + 1}))\n"
        ),
    )
    converted = convert_checkpoint(old, config, 'auto', statistics)
    assert torch.equal(columns_of(converted), ours)


# -- what a converted checkpoint is ------------------------------------------


def test_result_is_a_beginning():
    statistics = statistics_of(COUNTS)
    config = config_of(BAGS)
    checkpoint = checkpoint_of(config_of(SOFTMAX), statistics)
    checkpoint['ema_state_dict'] = checkpoint['state_dict']
    converted = convert_checkpoint(checkpoint, config)
    assert set(converted.meta) == {'cfg', 'dataset_meta'}
    assert 'BalancedGroupSoftmaxLoss' in converted.meta['cfg']
    assert 'CrossEntropyLoss' not in converted.meta['cfg']
    assert converted.class_statistics == statistics
    # The source is as it was.
    assert len(columns_of(checkpoint)) == C + 1
    assert checkpoint['optimizer'] == dict(state={})


def test_softmax_needs_no_statistics():
    checkpoint = checkpoint_of(config_of(SOFTMAX))
    converted = convert_checkpoint(checkpoint, config_of(BAGS))
    assert len(columns_of(converted)) == C + 3 + 2
    assert converted.class_statistics is None
    assert not any('loss_cls' in name for name in converted.weights)


def test_given_statistics_win():
    checkpoint = checkpoint_of(config_of(SOFTMAX), statistics_of(COUNTS))
    others = statistics_of(COUNTS[::-1])
    bags = config_of(BAGS)
    converted = convert_checkpoint(checkpoint, bags, 'auto', others)
    name = 'roi_head.bbox_head.loss_cls.bin_index'
    expected = others.bin_index(BAGS['bin_edges'])
    assert converted.weights[name].tolist() == expected.tolist()


def test_weights_alone_are_a_checkpoint():
    config = config_of(SOFTMAX)
    weights = checkpoint_of(config)['state_dict']
    wrapped = {f'module.{name}': value for name, value in weights.items()}
    for state_dict in (weights, wrapped):
        converted = convert_checkpoint(state_dict, config).weights
        assert converted.keys() == weights.keys()


def test_half_precision_stays():
    checkpoint = checkpoint_of(config_of(SOFTMAX))
    for name, value in checkpoint['state_dict'].items():
        checkpoint['state_dict'][name] = value.half()
    converted = convert_checkpoint(checkpoint, config_of(EQL))
    assert columns_of(converted).dtype == torch.half


def test_other_spelling_is_no_other_class():
    names = tuple(f'class {c}' for c in range(C - 1))
    statistics = statistics_of(COUNTS, (*names, 'speaker_(stero_equipment)'))
    checkpoint = checkpoint_of(config_of(SOFTMAX))
    checkpoint['meta']['dataset_meta'] = dict(
        CLASSES=(*names, 'speaker_(stereo_equipment)')
    )
    convert_checkpoint(checkpoint, config_of(BAGS), 'auto', statistics)


def test_scales_begin_at_one_and_like_is_not_touched():
    plain = config_of(SOFTMAX)
    scaled = config_of(SOFTMAX, cls_predictor_cfg=dict(type='ScaledLinear'))
    normed = config_of(SOFTMAX, cls_predictor_cfg=dict(type='NormedLinear'))
    checkpoint = checkpoint_of(plain)
    begun = convert_checkpoint(checkpoint, scaled)
    assert_close(predictions(begun, scaled), predictions(checkpoint, plain))
    for config in (scaled, normed):
        checkpoint = checkpoint_of(config)
        kept = convert_checkpoint(checkpoint, config).weights
        for name, value in checkpoint['state_dict'].items():
            assert torch.equal(kept[name], value)


# -- bad input ---------------------------------------------------------------


def test_a_layer_without_bias_is_left_alone():
    layer = dict(type='NormedLinear', bias=False)
    config = config_of(SOFTMAX, cls_predictor_cfg=layer)
    checkpoint = checkpoint_of(config, statistics_of(COUNTS))
    ebl = config_of(dict(type='EquilibriumLoss'), cls_predictor_cfg=layer)
    converted = convert_checkpoint(checkpoint, ebl).weights
    name = 'roi_head.bbox_head.fc_cls'
    expected = checkpoint['state_dict'][f'{name}.weight']
    assert torch.equal(converted[f'{name}.weight'], expected)
    assert f'{name}.bias' not in converted


def refused(message, checkpoint, config, *args):
    with pytest.raises(LongTailError, match=re.escape(message)) as caught:
        convert_checkpoint(checkpoint, config, *args)
    assert '\n' not in str(caught.value)


def test_what_does_not_fit_is_refused():
    statistics = statistics_of(COUNTS)
    softmax, bags, eql = map(config_of, (SOFTMAX, BAGS, EQL))
    checkpoint = checkpoint_of(softmax, statistics)
    refused(
        "the checkpoint: 7 classes, but num_classes of the config's "
        'bbox_head is 6',
        checkpoint,
        config_of(BAGS, 6),
    )
    refused('has 8 columns', checkpoint_of(softmax), config_of(BAGS, 6))
    refused(
        'fc_reg.weight is (28, 5), but (4, 5) in the model',
        checkpoint,
        config_of(BAGS, reg_class_agnostic=True),
    )
    refused("source is 'magic', expected 'auto'", checkpoint, bags, 'magic')
    refused(
        "has 8 columns, but sigmoid of the config's 7 classes has 7",
        *(checkpoint, bags, 'sigmoid'),
    )
    retina = Config(dict(model=dict(type='RetinaNet', bbox_head=dict())))
    refused('no model.roi_head.bbox_head', checkpoint, retina)
    refused('the checkpoint has no bbox head', dict(state_dict={}), bags)
    refused(
        'the config has roi_head.bbox_head.0, roi_head.bbox_head.1',
        checkpoint,
        config_of(BAGS, num_stages=2),
    )
    normed = config_of(BAGS, cls_predictor_cfg=dict(type='NormedLinear'))
    refused('only a Linear', checkpoint, normed)
    scaled = config_of(SOFTMAX, cls_predictor_cfg=dict(type='ScaledLinear'))
    refused('only a Linear', checkpoint_of(scaled), eql)
    refused(
        'loss_cls=CrossEntropyLoss: its columns are not known',
        checkpoint,
        config_of(dict(type='CrossEntropyLoss', use_sigmoid=True)),
    )


def test_classes_that_differ_are_refused():
    statistics = statistics_of(COUNTS)
    swapped = statistics_of(
        COUNTS, ('class 1', 'class 0', *(f'class {c}' for c in range(2, C)))
    )
    checkpoint = checkpoint_of(config_of(SOFTMAX), statistics)
    bags = config_of(BAGS)
    refused("but 'class 1' in the", checkpoint, bags, 'auto', swapped)
    refused(
        'the class statistics: 2 classes',
        *(checkpoint, bags, 'auto', statistics_of((3, 4))),
    )
    bags.train_dataloader = dict(
        dataset=dict(
            type='RepeatDataset',
            dataset=dict(
                type='CocoDataset',
                metainfo=dict(classes=swapped.class_names),
            ),
        )
    )
    refused("class 0 is 'class 0' in the checkpoint", checkpoint, bags)


def test_columns_that_nobody_explains_are_refused(tmp_path):
    statistics = statistics_of(COUNTS)
    bags = config_of(BAGS)
    bare = checkpoint_of(bags, statistics, with_cfg=False)
    refused('12 columns for 7 classes', bare, bags)
    converted = convert_checkpoint(bare, bags, 'bags')
    assert torch.equal(columns_of(converted), columns_of(bare))
    bare['meta']['cfg'] = 'this is no config'
    refused('12 columns for 7 classes', bare, bags)
    proof = tmp_path / 'proof'
    bare['meta']['cfg'] = f"{bags.pretty_text}open({str(proof)!r}, 'w')\n"
    refused('12 columns for 7 classes', bare, bags)
    assert not proof.exists()
    bare['meta']['cfg'] = config_text('os.system')
    refused('12 columns for 7 classes', bare, bags)
    bare['meta']['cfg'] = config_text('ACSL')
    refused('ACSL, is not known; give longtail convert', bare, bags)


def test_bins_without_statistics_are_refused():
    bags = config_of(BAGS)
    checkpoint = checkpoint_of(bags)
    for name in list(checkpoint['state_dict']):
        if 'loss_cls' in name:
            del checkpoint['state_dict'][name]
    refused('--class-statistics FILE', checkpoint, config_of(EQL))


# -- the tool ----------------------------------------------------------------

HOOK = """
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
"""
CHANGED_LOSS = """
_base_ = 'softmax.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, num_classes=4, {}))))
"""


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A softmax detector trained for one epoch, and configs to go to."""
    folder = tmp_path_factory.mktemp('project')
    make_data(folder / 'data')
    write_config(folder / 'softmax.py', folder / 'data')
    for name, loss in (
        ('eql', "type='EqualizationLoss'"),
        ('bags', "type='BalancedGroupSoftmaxLoss', bin_edges=(2, 3)"),
    ):
        text = CHANGED_LOSS.format(loss) + HOOK
        (folder / f'{name}.py').write_text(text)
    run_tool('train.py', 'softmax.py', cwd=folder)
    shutil.copy(folder / 'work_dirs' / 'softmax' / 'epoch_1.pth', folder)
    return folder


def detections(call_tool, project, config, checkpoint, out):
    process = call_tool(
        *('test.py', config, checkpoint, '--out', out),
        *('--work-dir', out.parent),
        cwd=project,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(out.with_suffix('.bbox.json').read_text())


def test_there_and_back_detects_the_same(project, tmp_path, call_tool):
    process = run_tool(
        *(*TOOL, 'epoch_1.pth', 'eql.py'),
        *(tmp_path / 'eql.pth', '--class-statistics', 'data/train.json'),
        cwd=project,
    )
    assert (
        'roi_head.bbox_head.fc_cls: 5 columns of CrossEntropyLoss -> 4 of '
        'EqualizationLoss; sigmoids computed'
    ) in process.stdout
    assert f'longtail test eql.py {tmp_path / "eql.pth"}' in process.stdout
    arguments = (tmp_path / 'eql.pth', 'softmax.py', tmp_path / 'back.pth')
    process = call_tool(*TOOL, *arguments, cwd=project)
    assert process.returncode == 0, process.stderr
    before, after = (
        detections(call_tool, project, 'softmax.py', path, tmp_path / name)
        for path, name in (('epoch_1.pth', 'one'), (arguments[2], 'two'))
    )
    assert len(before) == len(after) > 0
    for ours, theirs in zip(before, after):
        assert ours['score'] == pytest.approx(theirs['score'], abs=1e-6)


def test_bags_can_be_tested_and_trained(project, tmp_path, call_tool):
    arguments = ('epoch_1.pth', 'bags.py', tmp_path / 'bags.pth')
    process = call_tool(
        *(*TOOL, *arguments),
        *('--class-statistics', 'data/train.json'),
        cwd=project,
    )
    assert process.returncode == 0, process.stderr
    assert '5 columns of CrossEntropyLoss -> 9 of Bal' in process.stdout
    found = detections(
        call_tool, project, 'bags.py', arguments[2], tmp_path / 'found'
    )
    assert found
    process = call_tool(
        *('train.py', 'bags.py', '--work-dir', tmp_path / 'run'),
        *('--cfg-options', f'load_from={arguments[2]}'),
        cwd=project,
    )
    assert process.returncode == 0, process.stderr


def test_the_tool_says_in_one_line_what_is_wrong(project, tmp_path, call_tool):
    whole = (project / 'epoch_1.pth').read_bytes()
    (tmp_path / 'half.pth').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'a_file').write_text('')
    for message, *arguments in (
        ('no such checkpoint', 'no.pth', 'bags.py', tmp_path / 'out.pth'),
        (
            'is the file complete?',
            *(tmp_path / 'half.pth', 'bags.py', tmp_path / 'out.pth'),
        ),
        (
            'cannot be written',
            *('epoch_1.pth', 'bags.py', tmp_path / 'a_file' / 'out.pth'),
        ),
        ('exists already', 'epoch_1.pth', 'bags.py', 'epoch_1.pth'),
        ('ends in .pth', 'epoch_1.pth', 'bags.py', 'bags.py'),
        (
            'no such file',
            *('epoch_1.pth', 'bags.py', tmp_path / 'out.pth'),
            *('--class-statistics', 'no.json'),
        ),
    ):
        process = call_tool(*TOOL, *arguments, cwd=project)
        assert process.returncode == 1
        assert process.stderr.startswith('error: ')
        assert message in process.stderr
        assert process.stderr.count('\n') == 1
        assert not (tmp_path / 'out.pth').exists()
