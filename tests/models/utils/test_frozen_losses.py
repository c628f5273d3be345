"""What is left out while only a classifier trains, and what must not be."""

import copy
from pathlib import Path

import mmdet
import pytest
import support
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.registry import init_default_scope

from mmdet_longtail.models.utils.frozen_losses import skip_frozen_losses

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
DETECTORS = {
    'faster': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'mask scoring': 'ms_rcnn/ms-rcnn_r50-caffe_fpn_1x_coco.py',
    'point rend': 'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py',
    'cascade': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'HTC': 'htc/htc-without-semantic_r50_fpn_1x_coco.py',
    'SCNet': 'scnet/scnet_r50_fpn_1x_coco.py',
    'dynamic': 'dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py',
}
LOSS = dict(
    type='BalancedGroupSoftmaxLoss', num_classes=80, others_ratio=1e9
)  # draws nothing


def small(name):
    """The detector with a thin backbone, few proposals and its masks."""
    model = support.read_model(CONFIGS / DETECTORS[name])
    model.backbone.update(base_channels=4, init_cfg=None)
    model.neck.in_channels = [16, 32, 64, 128]
    model.train_cfg.rpn_proposal.max_per_img = 20
    return model


def build(name):
    init_default_scope('mmdet')
    model = small(name)
    # With more places than proposals the sampler draws nothing either.
    stages = model.train_cfg.rcnn
    for stage in stages if isinstance(stages, list) else [stages]:
        stage.sampler.num = 10**4
    for head in support.bbox_heads(model):
        head['loss_cls'] = copy.deepcopy(LOSS)
    built = support.build(model)
    support.give_statistics(built)
    built.train()
    for module in built.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    return built


def freeze_all_but(model, part):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part in name)
    return [n for n, p in model.named_parameters() if p.requires_grad]


def gradients_of(model):
    torch.manual_seed(1)
    inputs = demo_mm_inputs(
        1,
        [(3, 64, 64)],
        num_items=[5],
        num_classes=80,
        with_mask=True,
        with_semantic=True,
    )
    data = model.data_preprocessor(inputs, training=True)
    losses = model.forward(**data, mode='loss')
    model.zero_grad()
    total, _ = model.parse_losses(losses)
    total.backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return gradients, set(losses)


@pytest.mark.parametrize('name', DETECTORS)
def test_gradients_are_those_of_all_losses(name):
    model = build(name)
    trained = freeze_all_but(model, '.fc_cls.')
    expected, all_losses = gradients_of(model)
    skipped = skip_frozen_losses(model, trained)
    gradients, losses = gradients_of(model)
    assert set(gradients) == set(expected) == set(trained)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key])
    assert losses < all_losses
    assert 'rpn_head' in skipped
    assert not any('rpn' in key or 'bbox' in key for key in losses)
    has_masks = any('mask' in key for key in all_losses)
    assert has_masks == (name not in ('faster', 'dynamic'))
    # SCNet's RoI head needs the loss of its masks by name.
    assert any('mask' in key for key in losses) == (name == 'SCNet')


@pytest.mark.parametrize(
    ('part', 'kept'),
    [
        ('roi_head.bbox_head', {'loss_bbox'}),
        ('roi_head', {'loss_bbox', 'loss_mask', 'loss_rpn_cls'}),
        ('neck', {'loss_bbox', 'loss_mask', 'loss_rpn_cls'}),
    ],
)
def test_losses_of_what_trains_stay(part, kept):
    model = build('mask')
    trained = freeze_all_but(model, part)
    expected, _ = gradients_of(model)
    skip_frozen_losses(model, trained)
    gradients, losses = gradients_of(model)
    assert kept <= losses
    assert set(gradients) == set(expected)
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[key])


def test_detections_stay_and_a_copy_stands_alone():
    """EMAHook copies the model; its copy must not call the first one."""
    model = build('cascade')
    trained = freeze_all_but(model, '.fc_cls.')
    scores = support.predict(model)[0]
    skip_frozen_losses(model, trained)
    torch.testing.assert_close(support.predict(model)[0], scores)
    twin = copy.deepcopy(model)
    for module, other in zip(model.modules(), twin.modules(), strict=True):
        for key in ('loss', 'mask_loss', 'loss_by_feat'):
            if key in vars(module):
                assert vars(other)[key].__self__ is other
    assert twin.state_dict().keys() == model.state_dict().keys()


def test_a_head_with_a_loss_of_its_own_keeps_it():
    @MODELS.register_module()
    class OtherLossBBoxHead(MODELS.get('mmdet.Shared2FCBBoxHead')):
        def loss(self, *args, **kwargs):
            return super().loss(*args, **kwargs)

    try:
        init_default_scope('mmdet')
        model = small('faster')
        support.bbox_heads(model)[0]['type'] = 'OtherLossBBoxHead'
        built = support.build(model)
        trained = freeze_all_but(built, '.fc_cls.')
        skipped = skip_frozen_losses(built, trained)
        assert skipped == ['rpn_head']
    finally:
        MODELS.module_dict.pop('OtherLossBBoxHead')
