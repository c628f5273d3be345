"""Cascades average raw logits over stages that share their bins."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from tiny import make_data, write_config

from mmdet_longtail.structures.class_statistics import ClassStatistics

BIN_EDGES = (2, 4)  # the four classes have 4, 3, 2 and 1 training boxes
NUM_STAGES = 3
DETECTORS = {
    'CascadeRoIHead': 'CascadeRCNN',
    'LongTailCascadeRoIHead': 'CascadeRCNN',
    'HybridTaskCascadeRoIHead': 'HybridTaskCascade',
    'LongTailHybridTaskCascadeRoIHead': 'HybridTaskCascade',
}
BAGS = dict(
    type='BalancedGroupSoftmaxLoss', num_classes=4, bin_edges=BIN_EDGES
)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes')


def config_of(family, data, work_dir):
    """The small detector with three stages, masks too in an HTC."""
    config = Config.fromfile(write_config(work_dir / 'config.py', data))
    config.work_dir = str(work_dir)
    config.experiment_name = f'{work_dir.name}_{family}'
    config.default_hooks.class_statistics = dict(type='ClassStatisticsHook')
    model = config.model
    model.type = DETECTORS[family]
    roi_head = model.roi_head
    roi_head.type = family
    if family.startswith('LongTail'):
        roi_head.bbox_head.type = 'LongTailShared2FCBBoxHead'
    roi_head.bbox_head.loss_cls = BAGS
    roi_head.bbox_head = [roi_head.bbox_head] * NUM_STAGES
    roi_head.num_stages = NUM_STAGES
    roi_head.stage_loss_weights = [1.0, 0.5, 0.25]
    rcnn = model.train_cfg.rcnn | dict(mask_size=6)
    model.train_cfg.rcnn = [rcnn] * NUM_STAGES
    if model.type == 'HybridTaskCascade':
        config.train_dataloader.dataset.pipeline[1].with_mask = True
        model.test_cfg.rcnn.mask_thr_binary = 0.5
        roi_head.mask_roi_extractor = roi_head.bbox_roi_extractor
        mask_head = dict(
            type='HTCMaskHead',
            num_convs=1,
            in_channels=16,
            conv_out_channels=16,
            num_classes=4,
        )
        roi_head.mask_head = [mask_head] * NUM_STAGES
    return config


def listen(roi_head, monkeypatch):
    """Collect the logits of each stage, and the labels it refines boxes by."""
    logits, labels = [], []
    for head in roi_head.bbox_head:
        head.fc_cls.register_forward_hook(
            lambda module, args, output: logits.append(output)
        )

        def regress(priors, label, *args, mmdets=head.regress_by_class):
            labels.append(label)
            return mmdets(priors, label, *args)

        monkeypatch.setattr(head, 'regress_by_class', regress)
    return logits, labels


@pytest.mark.parametrize('family', DETECTORS)
def test_cascade_averages_raw_logits(family, data, tmp_path, monkeypatch):
    runner = Runner.from_cfg(config_of(family, data, tmp_path))
    runner.train()
    model, roi_head = runner.model.eval(), runner.model.roi_head
    statistics = ClassStatistics.from_annotation_file(data / 'train.json')
    losses = [head.loss_cls for head in roi_head.bbox_head]
    assert len(losses) == NUM_STAGES
    for loss in losses:
        assert loss.bin_index.tolist() == [2, 1, 1, 0]
        assert loss.bin_index.tolist() == list(statistics.bin_index(BIN_EDGES))
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    names = [name for name in saved['state_dict'] if 'bin_index' in name]
    assert len(names) == NUM_STAGES

    torch.manual_seed(0)
    for head in roi_head.bbox_head:
        torch.nn.init.normal_(head.fc_cls.weight)
    logits, labels = listen(roi_head, monkeypatch)
    dataset = runner.val_dataloader.dataset
    batch = pseudo_collate([dataset[0], dataset[1]])
    batch = model.data_preprocessor(batch)
    inputs, samples = batch['inputs'], batch['data_samples']
    is_htc = DETECTORS[family] == 'HybridTaskCascade'
    with torch.no_grad():
        x = model.extract_feat(inputs)
        proposals = model.rpn_head.predict(x, samples, rescale=False)
        raw = roi_head.predict_bbox(
            x,
            [sample.metainfo for sample in samples],
            proposals,
            rcnn_test_cfg=None,
            **(dict(semantic_feat=None) if is_htc else {}),
        )
    found = torch.cat([image.scores for image in raw])
    assert len(logits) == NUM_STAGES and len(found) > 2
    expected = losses[0].get_activation(sum(logits) / NUM_STAGES)
    torch.testing.assert_close(found, expected)
    probs = [losses[0].get_activation(z) for z in logits]
    assert (found - sum(probs) / NUM_STAGES).abs().max() > 1e-4

    # Between stages boxes follow the likeliest class, not the largest logit.
    sizes = [len(image.scores) for image in raw]
    for stage in range(NUM_STAGES - 1):
        likeliest = probs[stage][:, :-1].argmax(1).split(sizes)
        for image, label in enumerate(likeliest):
            assert torch.equal(labels[2 * stage + image], label)

    with torch.no_grad():
        results = model.predict(inputs, samples, rescale=False)
    scores = torch.cat([image.pred_instances.scores for image in results])
    assert len(scores) > 2
    distance = scores.unsqueeze(1) - expected[:, :-1].reshape(1, -1)
    assert distance.abs().min(1).values.max() < 1e-6
