"""Detectors with random classifiers in files, and what a tool made of them."""

import copy
import re

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny import CLASS_NAMES, make_data, write_config

from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.structures.class_statistics import ClassStatistics

C = len(CLASS_NAMES)
HEAD = 'roi_head.bbox_head'


def as_cascade(config):
    head = config.model.roi_head
    config.model.type = 'CascadeRCNN'
    head.type = 'CascadeRoIHead'
    head.num_stages = 2
    head.stage_loss_weights = [1, 0.5]
    head.bbox_head.reg_class_agnostic = True
    head.bbox_head = [head.bbox_head, copy.deepcopy(head.bbox_head)]
    config.model.train_cfg.rcnn = [config.model.train_cfg.rcnn] * 2


def save(folder, name, data, change=lambda config: None, keep_config=True):
    """Write a config and a checkpoint of a detector with random weights."""
    init_default_scope('mmdet')
    config = Config.fromfile(write_config(folder / f'{name}.py', data))
    change(config)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    for head in classifier_heads(model).values():
        torch.nn.init.normal_(head.fc_cls.weight)
        if head.fc_cls.bias is not None:
            torch.nn.init.normal_(head.fc_cls.bias)
        if hasattr(head.fc_cls, 'scale'):
            torch.nn.init.uniform_(head.fc_cls.scale, 0.5, 2.0)
    config.dump(folder / f'{name}.py')
    text = (folder / f'{name}.py').read_text()
    meta = dict(dataset_meta=dict(classes=CLASS_NAMES), epoch=3)
    torch.save(
        dict(
            meta=meta | (dict(cfg=text) if keep_config else {}),
            state_dict=model.state_dict(),
        ),
        folder / f'{name}.pth',
    )


def scaled(config):
    head = config.model.roi_head.bbox_head
    head.cls_predictor_cfg = dict(type='ScaledLinear')


def with_masks(config):
    """Make a Mask R-CNN."""
    roi_head = config.model.roi_head
    config.model.type = 'MaskRCNN'
    roi_head.mask_roi_extractor = copy.deepcopy(roi_head.bbox_roi_extractor)
    roi_head.mask_head = dict(
        type='FCNMaskHead',
        num_convs=1,
        in_channels=16,
        conv_out_channels=8,
        num_classes=C,
        loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
    )
    config.model.train_cfg.rcnn.mask_size = 14
    config.model.test_cfg.rcnn.mask_thr_binary = 0.5


def write_project(folder):
    """Write the detectors of all tests of classifiers."""
    data = make_data(folder / 'shapes', num_train=8)
    save(folder, 'softmax', data)
    save(folder, 'bare', data, keep_config=False)
    save(folder, 'cascade', data, as_cascade)
    save(folder, 'masks', data, with_masks)
    save(folder, 'scaled', data, scaled)

    def both(config):
        scaled(config)
        as_cascade(config)

    def eql(config):
        config.model.roi_head.bbox_head.loss_cls = dict(
            type='EqualizationLoss', num_classes=C
        )

    def bags(config):
        config.model.roi_head.bbox_head.loss_cls = dict(
            type='BalancedGroupSoftmaxLoss', num_classes=C, bin_edges=(4,)
        )

    def seesaw(config):
        config.model.roi_head.bbox_head.loss_cls = dict(
            type='SeesawLoss', num_classes=C
        )

    def eqlv2(config):
        config.model.roi_head.bbox_head.loss_cls = dict(
            type='EQLV2Loss', num_classes=C
        )

    def normed(config):
        head = config.model.roi_head.bbox_head
        head.cls_predictor_cfg = dict(type='NormedLinear', bias=False)

    save(folder, 'scaled_cascade', data, both)
    save(folder, 'eql', data, eql)
    save(folder, 'bags', data, bags)
    save(folder, 'seesaw', data, seesaw)
    save(folder, 'eqlv2', data, eqlv2)
    save(folder, 'normed', data, normed)
    return folder


def load_model(config, checkpoint):
    """The detector as a test builds it, and what the checkpoint holds."""
    init_default_scope('mmdet')
    found = torch.load(checkpoint, weights_only=True)
    model = MODELS.build(Config.fromfile(config).model).eval()
    missing = model.load_state_dict(found['state_dict'], strict=False)
    assert not missing.missing_keys
    return model, found


def rows_of(checkpoint, stage=''):
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    name = f'{HEAD}{stage}.fc_cls'
    return weights[f'{name}.weight'], weights[f'{name}.bias']


def choice_in(process):
    [value] = re.findall(r'(\S+) has the best AP', process.stdout)
    return float(value)


def check_test(call_tool, out):
    """The checkpoint is tested by the config beside it, as it stands."""
    process = call_tool('test.py', out.with_suffix('.py'), out)
    assert process.returncode == 0, process.stderr
    assert 'coco/bbox_mAP' in process.stdout
    found = torch.load(out, weights_only=True)
    assert found['meta']['epoch'] == 3
    statistics = ClassStatistics.from_dict(found['class_statistics'])
    assert statistics.image_count.tolist() == [8, 7, 6, 5]
    text = out.with_suffix('.py').read_text()
    assert Config.fromstring(found['meta']['cfg'], '.py').model == (
        Config.fromstring(text, '.py').model
    )


def check_refused(process, words, tmp_path):
    assert process.returncode == 1
    assert process.stderr.startswith('error: ')
    assert process.stderr.count('\n') == 1
    assert words in process.stderr
    assert not list(tmp_path.glob('out*'))
