"""tools/make_config.py: its configs build, load data, and train."""

import json
import shutil

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from tiny import CLASS_NAMES, make_data, write_config
from tool_runs import run_tool

from mmdet_longtail.structures.class_statistics import ClassStatistics

BASES = {
    'faster': 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'htc': 'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py',
    'scoring': 'mmdet::ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py',
    'lvis': 'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py',
    'seesaw': 'mmdet::seesaw_loss/'
    'mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py',
}
LOSSES = {
    'softmax': 'CrossEntropyLoss',
    'sigmoid': 'EqualizationLoss',
    'eql': 'EqualizationLoss',
    'bags': 'BalancedGroupSoftmaxLoss',
    'reweighted': 'ReweightedSoftmaxLoss',
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    register_all_modules()
    init_default_scope('mmdet')
    return make_data(tmp_path_factory.mktemp('own') / 'data')


@pytest.fixture
def write(call_tool, tmp_path, data):
    """Write a config, and give its path."""

    def call(*args, data_root=data, out='own.py'):
        process = call_tool(
            'make_config.py',
            data_root,
            *('--train', 'train.json', '--val', 'val.json', '--out', out),
            *args,
        )
        assert process.returncode == 0, process.stderr
        return tmp_path / out

    return call


def test_a_link_keeps_its_name(call_tool, tmp_path, data):
    (tmp_path / 'mine').symlink_to(data)
    files = ('--train', 'train.json', '--val', 'val.json')
    process = call_tool(
        'make_config.py', 'mine', *files, '--method', 'softmax'
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / 'mine_softmax.py').exists()


@pytest.fixture
def refuse(call_tool, tmp_path, data):
    """Expect a refusal, and give its line."""

    def call(*args, data_root=data, val='val.json'):
        before = {p: p.read_bytes() for p in tmp_path.glob('*.py')}
        process = call_tool(
            'make_config.py',
            data_root,
            *('--train', 'train.json', '--val', val, '--out', 'own.py'),
            *args,
        )
        assert process.returncode == 1
        assert 'Traceback' not in process.stderr
        assert process.stderr.startswith('error: ')
        assert len(process.stderr.splitlines()) == 1
        after = {p: p.read_bytes() for p in tmp_path.glob('*.py')}
        assert after == before
        return process.stderr

    return call


def bbox_heads(config):
    heads = config.model.roi_head.bbox_head
    return heads if isinstance(heads, list) else [heads]


def shrink(config):
    """The same detector with a few channels and proposals."""
    few = {256: 8, 512: 8, 1024: 8, 1000: 20, 2000: 20}

    def replace(value):
        if isinstance(value, dict):
            return type(value)({k: replace(v) for k, v in value.items()})
        if isinstance(value, list):
            return [replace(v) for v in value]
        return few.get(value, value) if type(value) is int else value

    config.model = replace(config.model)
    config.model.backbone.init_cfg = None
    config.model.backbone.base_channels = 4
    config.model.neck.in_channels = [16, 32, 64, 128]
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.num_workers = 0
        loader.persistent_workers = False
    return config


@pytest.mark.parametrize('method', LOSSES)
@pytest.mark.parametrize('base', ['faster', 'mask', 'cascade', 'htc'])
def test_config_builds_for_every_method_and_base(base, method, write):
    """The tool itself builds the whole model on the meta device."""
    path = write('--method', method, '--base', BASES[base])
    config = Config.fromfile(path)
    roi_head = config.model.roi_head
    for name in ('bbox_head', 'mask_head', 'mask_iou_head'):
        heads = roi_head.get(name) or []
        for head in heads if isinstance(heads, list) else [heads]:
            assert head.num_classes == 4
    for head in bbox_heads(config):
        assert head.loss_cls.type == LOSSES[method]
        if method != 'softmax':
            assert head.loss_cls.num_classes == 4
        assert '_delete_' not in head.loss_cls
    assert len(bbox_heads(config)) == (3 if base in ('cascade', 'htc') else 1)
    assert config.model.test_cfg.rcnn.score_thr == 1e-4
    assert config.model.test_cfg.rcnn.max_per_img == 300
    assert config.default_hooks.class_statistics
    assert config.val_evaluator.type == 'FrequencyGroupMetric'
    metric = 'bbox' if base == 'faster' else ['bbox', 'segm']
    assert config.test_evaluator.metric == metric
    for loader in (config.train_dataloader, config.test_dataloader):
        dataset = DATASETS.build(loader.dataset)
        assert dataset.metainfo['classes'] == CLASS_NAMES
        assert len(dataset) == (4 if loader is config.train_dataloader else 2)


@pytest.mark.parametrize(
    ('base', 'method'),
    [
        ('faster', 'softmax'),
        ('mask', 'sigmoid'),
        ('cascade', 'eql'),
        ('htc', 'bags'),
    ],
)
def test_config_takes_a_training_step(base, method, write, tmp_path):
    path = write(
        *('--method', method, '--base', BASES[base], '--scale', 64, 64)
    )
    config = shrink(Config.fromfile(path))
    config.work_dir = str(tmp_path / 'run')
    config.train_cfg.max_epochs = 1
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    runner = Runner.from_cfg(config)
    before = [p.detach().clone() for p in runner.model.parameters()]
    runner.train()
    after = list(runner.model.parameters())
    assert all(parameter.isfinite().all() for parameter in after)
    assert any(not torch.equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize('base', ['scoring', 'lvis', 'seesaw'])
def test_unusual_bases(base, write):
    path = write('--method', 'softmax', '--base', BASES[base])
    config = Config.fromfile(path)
    MODELS.build(shrink(config).model)
    assert bbox_heads(config)[0].loss_cls.type == 'CrossEntropyLoss'
    assert config.train_dataloader.dataset.type == 'AnnotationFileDataset'


def test_several_local_bases(write, data, tmp_path):
    whole = Config.fromfile(write_config(tmp_path / 'whole.py', data))
    (tmp_path / 'parts').mkdir()
    keys = {
        'model.py': ['model'],
        'rest.py': [key for key in whole if key != 'model'],
    }
    for name, parts in keys.items():
        Config({k: whole[k] for k in parts}).dump(tmp_path / 'parts' / name)
    path = write(
        *('--method', 'bags', '--base', 'parts/model.py', 'parts/rest.py'),
        out='configs/own.py',
    )
    for name in keys:
        assert f"'../parts/{name}'" in path.read_text()
    assert Config.fromfile(path).model.backbone.base_channels == 8


def test_many_classes_stay_a_short_config(write, tmp_path):
    names = tuple(f'class {i}' for i in range(1203))
    data_root = make_data(tmp_path / 'many', class_names=names)
    path = write('--method', 'eql', data_root=data_root)
    lines = path.read_text().splitlines()
    assert len(lines) < 90
    assert all(len(line) < 120 for line in lines)
    config = Config.fromfile(path)
    assert config.model.roi_head.bbox_head.num_classes == 1203
    dataset = DATASETS.build(config.train_dataloader.dataset)
    assert dataset.metainfo['classes'] == names


def test_settings_come_from_the_data(write, data):
    """The data has four times as many boxes of one class as of another."""
    text = write('--method', 'eql', out='eql.py').read_text()
    loss = Config.fromstring(text, '.py').model.roi_head.bbox_head.loss_cls
    assert loss.frequency_threshold == 0
    assert '# The data is not long-tailed: ' in text
    assert '# frequency_threshold: not suggested, since ' in text
    text = write('--method', 'bags', out='bags.py').read_text()
    loss = Config.fromstring(text, '.py').model.roi_head.bbox_head.loss_cls
    assert loss.bin_edges == (3,)
    assert '# bin_edges: not suggested, since ' in text


@pytest.fixture
def long_tail(data, tmp_path):
    """The same images; each is shown ten times, and one class is in one."""

    def change(content):
        one, images = 4, content['images']
        boxes = [a for a in content['annotations'] if a['category_id'] != one]
        last = content['annotations'][-1]
        content['images'] = [
            dict(image, id=100 * i + image['id'])
            for i in range(10)
            for image in images
        ]
        copies = [
            dict(box, image_id=100 * i + box['image_id'])
            for i in range(10)
            for box in boxes
        ]
        copies.append(dict(last, category_id=one))
        content['annotations'] = [
            dict(box, id=i) for i, box in enumerate(copies)
        ]

    return copy_data(data, tmp_path / 'tailed', change, 'train')


def test_settings_come_from_a_long_tail(write, long_tail):
    statistics = ClassStatistics.from_annotation_file(long_tail / 'train.json')
    assert statistics.image_count.tolist() == [40, 30, 20, 1]
    text = write(
        *('--method', 'eql', '--rfs'), data_root=long_tail, out='eql.py'
    ).read_text()
    config = Config.fromstring(text, '.py')
    loss = config.model.roi_head.bbox_head.loss_cls
    assert statistics.is_tail(loss.frequency_threshold).tolist() == (
        [False] * 3 + [True]
    )
    sampler = config.train_dataloader.sampler
    assert sampler.type == 'RepeatFactorSampler' and 'shuffle' not in sampler
    assert 1 / 40 < sampler.oversample_thr <= 1
    for key in ('frequency_threshold', 'oversample_thr'):
        assert f'# {key}: ' in text
    assert '# The data is imbalanced' in text


def test_a_small_detector_for_a_cpu(write, long_tail, capsys, recwarn):
    path = write(
        *('--method', 'bags', '--small', '--epochs', 10, '--batch-size', 2),
        *('--sampler', 'class-aware'),
        data_root=long_tail,
    )
    config = Config.fromfile(path)
    assert config.model.backbone.type == 'MobileNetV2'
    assert config.train_cfg.max_epochs == 10
    assert config.param_scheduler[1].T_max == 10  # 5 in the base
    assert config.param_scheduler[0].end == 100  # iterations
    loader = config.train_dataloader
    assert loader.batch_size == 2
    assert loader.sampler.type == 'ClassAwareImageSampler'
    # AdamW's 1e-3 is for the 4 images of the base.
    assert config.optim_wrapper.optimizer.lr == pytest.approx(5e-4)
    assert config.val_evaluator.ann_file == str(long_tail / 'val.json')
    MODELS.build(config.model)
    item = DATASETS.build(loader.dataset)[0]
    assert max(item['inputs'].shape[1:]) == 320
    assert any('longtail mobilenet-v2' in str(w.message) for w in recwarn)


def test_schedules_are_stretched(write):
    path = write('--method', 'eql', '--epochs', 24, '--batch-size', 4)
    config = Config.fromfile(path)
    assert config.train_cfg.max_epochs == 24
    assert config.param_scheduler[1].milestones == [16, 22]
    assert config.param_scheduler[1].end == 24
    # mmdet's 0.02 is for 16 images.
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.005)


@pytest.mark.parametrize(
    ('epochs', 'milestones'), [(1, []), (2, [1]), (6, [4, 5])]
)
def test_short_schedules_keep_their_decays(epochs, milestones, write):
    path = write('--method', 'eql', '--epochs', epochs)
    config = Config.fromfile(path)
    assert config.param_scheduler[1].milestones == milestones
    assert config.param_scheduler[1].end == epochs


@pytest.mark.parametrize('method', LOSSES)
def test_balanced_data_is_said(method, write, recwarn):
    write('--method', method)
    said = [w for w in recwarn if 'not long-tailed' in str(w.message)]
    assert len(said) == (method not in ('softmax', 'sigmoid'))


def test_validation_on_training_images_is_said(write, data):
    with pytest.warns(UserWarning, match='--train and --val are one file'):
        write('--method', 'softmax', '--val', './train.json')


@pytest.mark.parametrize('place', ['.', 'images', 'pictures/all'])
def test_images_are_found(place, write, data, tmp_path):
    data_root = tmp_path / 'moved'
    (data_root / place).mkdir(parents=True)
    for path in data.glob('images/*'):
        shutil.copy(path, data_root / place)
    for path in data.glob('*.json'):
        shutil.copy(path, data_root)
    path = write('--method', 'softmax', data_root=data_root)
    dataset = DATASETS.build(Config.fromfile(path).train_dataloader.dataset)
    assert dataset[0]['inputs'].shape[0] == 3


def test_first_and_second_stage_train(data, tmp_path):
    """As a person does: two configs, two trainings."""
    write_config(tmp_path / 'tiny.py', data)
    arguments = ('make_config.py', data, '--train', 'train.json')
    arguments += ('--val', 'val.json', '--method')
    run_tool(*arguments, 'softmax', '--base', 'tiny.py', cwd=tmp_path)
    run_tool('train.py', 'data_softmax.py', cwd=tmp_path)
    stage = ('--base-config', 'data_softmax.py')
    run_tool(*arguments, 'bags', *stage, cwd=tmp_path)
    run_tool('train.py', 'data_bags.py', cwd=tmp_path)
    states = [
        torch.load(tmp_path / 'work_dirs' / name / 'epoch_1.pth')['state_dict']
        for name in ('data_softmax', 'data_bags')
    ]
    for name, weight in states[0].items():
        same = weight.shape == states[1][name].shape and torch.equal(
            weight, states[1][name]
        )
        assert same == ('fc_cls' not in name), name
    metrics = json.loads(
        (tmp_path / 'work_dirs' / 'data_bags' / 'metrics.json').read_text()
    )
    assert 'frequency_group/bbox_APr' in metrics


def test_second_stage_of_a_cascade(write):
    write('--method', 'softmax', '--base', BASES['cascade'], out='first.py')
    path = write('--method', 'bags', '--base-config', 'first.py')
    config = Config.fromfile(path)
    assert config.base_config == 'first.py'
    assert config.load_from == 'work_dirs/first/epoch_12.pth'
    hook = config.default_hooks.train_only
    assert hook.trainable == ['roi_head.bbox_head.*.fc_cls']
    assert config.default_hooks.class_statistics


def test_epochs_and_batch_size_of_a_second_stage(write):
    write('--method', 'softmax', '--batch-size', 4, out='first.py')
    path = write(
        *('--method', 'bags', '--base-config', 'first.py'),
        *('--epochs', 3, '--batch-size', 8),
    )
    config = Config.fromfile(path)
    assert config.train_cfg.max_epochs == 3
    assert config.load_from == 'work_dirs/first/epoch_12.pth'
    # mmdet's 0.02 is for 16 images, the 0.005 of the first stage for 4.
    assert config.optim_wrapper.optimizer.lr == pytest.approx(0.01)
    assert config.auto_scale_lr.base_batch_size == 8


# -- what it refuses ---------------------------------------------------------


@pytest.mark.parametrize(
    ('base', 'expected'),
    [
        ('no.py', 'no.py'),
        ('mmdet::no/no.py', 'not a config that can be read'),
        ('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'roi_head'),
        ('mmdet::htc/htc_r50_fpn_1x_coco.py', 'htc-without-semantic'),
        ('mmdet::_base_/models/faster-rcnn_r50_fpn.py', 'train_dataloader'),
        (
            'mmdet::double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py',
            'DoubleConvFCBBoxHead',
        ),
    ],
)
def test_base_that_cannot_work(base, expected, refuse):
    assert expected in refuse('--method', 'eql', '--base', base)


def test_existing_file_is_kept(refuse, tmp_path):
    (tmp_path / 'own.py').write_text('# mine')
    assert 'exists already' in refuse('--method', 'eql')


def copy_data(data, folder, change=None, split='val'):
    shutil.copytree(data, folder)
    path = folder / f'{split}.json'
    content = json.loads(path.read_text())
    if change:
        change(content)
    path.write_text(json.dumps(content))
    return folder


def swap_categories(content):
    content['categories'].reverse()


def drop_category(content):
    content['categories'].pop()
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] < 4
    ]


def drop_masks(content):
    for annotation in content['annotations']:
        del annotation['segmentation']


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (swap_categories, "class 0 is 'cross'"),
        (drop_category, '3 classes, but'),
        (drop_masks, 'no segmentation'),
    ],
)
def test_files_that_do_not_fit(change, expected, refuse, data, tmp_path):
    data_root = copy_data(data, tmp_path / 'other', change)
    line = refuse(
        *('--method', 'eql', '--base', BASES['mask']), data_root=data_root
    )
    assert expected in line
    assert str(data_root / 'val.json') in line


def test_images_that_are_not_there(refuse, data, tmp_path):
    data_root = copy_data(data, tmp_path / 'other')
    shutil.copytree(data_root / 'images', data_root / 'again')
    assert '--image-prefix' in refuse('--method', 'eql', data_root=data_root)
    line = refuse(
        *('--method', 'eql', '--image-prefix', 'nowhere'), data_root=data_root
    )
    assert 'nowhere' in line


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--rfs'], 'the images per class are too even'),
        (['--scale', 0, 64], '--scale is'),
        (['--image-prefix', 'a', 'b', 'c'], '--image-prefix is'),
        (['--out', 'images'], 'ends in .py'),
        (['--out', 'no/such.py/a.py'], 'cannot be written'),
        (['--rfs', '--base-config', 'first.py'], '--sampler: the second st'),
        (['--scale', 9, 9, '--base-config', 'first.py'], '--scale: the sec'),
    ],
)
def test_arguments_that_cannot_work(arguments, expected, refuse, tmp_path):
    (tmp_path / 'no').mkdir()
    (tmp_path / 'no' / 'such.py').write_text('')
    assert expected in refuse('--method', 'eql', *arguments)


def test_scale_without_a_size(refuse, data, tmp_path):
    config = Config.fromfile(write_config(tmp_path / 'tiny.py', data))
    del config.train_dataloader.dataset.pipeline[2]
    config.dump(tmp_path / 'tiny.py')
    arguments = ('--method', 'eql', '--base', 'tiny.py', '--scale', 32, 32)
    assert 'no Resize' in refuse(*arguments)


def test_first_stage_of_other_data(write, refuse, data, tmp_path):
    write('--method', 'softmax', out='first.py')
    data_root = copy_data(data, tmp_path / 'other')
    line = refuse(
        *('--method', 'bags', '--base-config', 'first.py'), data_root=data_root
    )
    assert 'both stages need the same data' in line
    shutil.copy(data / 'val.json', data / 'other.json')
    line = refuse(
        *('--method', 'bags', '--base-config', 'first.py'),
        *('--val', 'other.json'),
    )
    assert 'its val_dataloader reads' in line
