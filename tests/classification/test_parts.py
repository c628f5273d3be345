"""Datasets, networks, the metric and the transform of classification."""

import numpy as np
import pytest
import torch
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.evaluator import Evaluator
from mmpretrain.datasets import BaseDataset, MultiLabelDataset
from mmpretrain.structures import DataSample

from mmdet_longtail.classification import (
    CIFAR100LT,
    CIFARAutoAugment,
    CIFARResNet32,
    ImageNetLT,
    ResNet10,
    ShotAccuracy,
)
from mmdet_longtail.classification.datasets import (
    exponential_image_count,
    select_images,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.class_statistics import ClassStatistics

# -- how many images of a class -------------------------------------------


def test_cifar_100_lt_has_the_counts_of_the_paper():
    image_count = exponential_image_count(100, 500, 200)
    assert image_count.sum() == 9502
    assert (image_count[0], image_count[-1]) == (500, 2)
    naive = [int(500 * (1 / 200) ** (c / 99)) for c in range(100)]
    assert image_count.tolist() == naive


def test_imbalance_one_is_balanced():
    assert exponential_image_count(7, 30, 1).tolist() == [30] * 7


@pytest.mark.parametrize('imbalance', [0.5, 501])
def test_imbalance_out_of_range(imbalance):
    with pytest.raises(LongTailError, match=f'imbalance is {imbalance}'):
        exponential_image_count(100, 500, imbalance)


def test_selected_images_are_of_the_wanted_counts():
    labels = np.random.default_rng(1).integers(0, 4, 200)
    wanted = np.array([20, 9, 0, 3])
    selected = select_images(labels, wanted, seed=5)
    assert len(set(selected)) == wanted.sum()
    assert np.bincount(labels[selected], minlength=4).tolist() == [20, 9, 0, 3]
    again = select_images(labels, wanted, seed=5)
    assert selected.tolist() == again.tolist() == sorted(selected)
    assert selected.tolist() != select_images(labels, wanted, 6).tolist()


def test_too_few_images():
    with pytest.raises(LongTailError, match='class 1 has 2 images, but 3'):
        select_images([0, 1, 1], np.array([1, 3]), seed=0)


# -- datasets --------------------------------------------------------------


def test_cifar_100_lt(cifar100, without_checksums):
    train = CIFAR100LT(data_root=str(cifar100), download=False)
    counts = np.bincount(train.get_gt_labels())
    assert counts.tolist() == exponential_image_count(100, 500, 200).tolist()
    other = CIFAR100LT(
        data_root=str(cifar100), selection_seed=1, imbalance=250
    )
    assert np.bincount(other.get_gt_labels())[0] == 500
    assert len(other) < len(train)
    test = CIFAR100LT(data_root=str(cifar100), split='test', test_mode=True)
    assert np.bincount(test.get_gt_labels()).tolist() == [1] * 100
    assert test.metainfo == train.metainfo


def write_list(folder, text):
    (folder / 'list.txt').write_text(text)
    return ImageNetLT(data_root=str(folder), ann_file='list.txt')


def test_imagenet_lt(tmp_path):
    text = 'train/n01440764/a b.JPEG 0\nval/c.JPEG 999\ntrain/d.JPEG 999\n'
    dataset = write_list(tmp_path, text)
    assert dataset.get_gt_labels().tolist() == [0, 999, 999]
    info = dataset.get_data_info(0)
    assert info['img_path'] == f'{tmp_path}/train/n01440764/a b.JPEG'
    statistics = ClassStatistics.from_dataset(dataset)
    assert statistics.class_names[0] == 'tench, Tinca tinca'
    assert statistics.image_count[[0, 1, 999]].tolist() == [1, 0, 2]
    assert statistics.num_images == 3


@pytest.mark.parametrize(
    'line', ['a.JPEG', 'a.JPEG cat', 'a.JPEG 1000', 'a.JPEG -1', '7', '']
)
def test_imagenet_lt_names_the_line(tmp_path, line):
    with pytest.raises(LongTailError) as error:
        write_list(tmp_path, f'b.JPEG 3\n{line}\nc.JPEG 4\n')
    assert f'list.txt: line 2 is {line!r}' in str(error.value)
    assert '0..999' in str(error.value)


def test_imagenet_lt_without_a_list(tmp_path):
    with pytest.raises(LongTailError, match=r'list\.txt: no such list file'):
        ImageNetLT(data_root=str(tmp_path), ann_file='list.txt')
    with pytest.raises(LongTailError, match=r'list\.txt: the list file is em'):
        write_list(tmp_path, '')


# -- counts ----------------------------------------------------------------


class Images(BaseDataset):
    """Labels without images."""

    def __init__(self, labels, classes=('cat', 'dog', 'emu')):
        self.labels = labels
        super().__init__(ann_file='', classes=classes)

    def load_data_list(self):
        return [{'gt_label': label} for label in self.labels]


def test_classification_sets_are_counted():
    statistics = ClassStatistics.from_dataset(Images([0, 0, 2, 0]))
    assert statistics.class_names == ('cat', 'dog', 'emu')
    assert statistics.image_count.tolist() == [3, 0, 1]
    assert statistics.instance_count.tolist() == [3, 0, 1]
    assert statistics.num_images == statistics.num_annotated_images == 4


def test_wrapped_sets_are_counted_once():
    one, other = Images([0, 0, 2]), Images([1])
    for dataset in (
        RepeatDataset(one, 3),
        ClassBalancedDataset(one, 0.9),
    ):
        statistics = ClassStatistics.from_dataset(dataset)
        assert statistics.image_count.tolist() == [2, 0, 1]
    statistics = ClassStatistics.from_dataset(ConcatDataset([one, other]))
    assert statistics.image_count.tolist() == [2, 1, 1]


def test_label_outside_the_classes():
    with pytest.raises(LongTailError, match='an image has the label 3'):
        ClassStatistics.from_dataset(Images([0, 3]))


def test_many_labels_an_image_are_refused():
    class ManyLabels(MultiLabelDataset):
        def load_data_list(self):
            return [{'gt_label': [0, 1]}, {'gt_label': [1]}]

    dataset = ManyLabels(ann_file='', classes=('cat', 'dog'))
    with pytest.raises(LongTailError, match="gives no usable 'gt_label'"):
        ClassStatistics.from_dataset(dataset)


# -- networks --------------------------------------------------------------


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def conv_and_norm(kernel, num_in, num_out):
    return kernel**2 * num_in * num_out + 2 * num_out


def test_resnet_32_is_that_of_he_et_al():
    expected = conv_and_norm(3, 3, 16) + 10 * conv_and_norm(3, 16, 16)
    for width in (32, 64):
        expected += conv_and_norm(3, width // 2, width)
        expected += 9 * conv_and_norm(3, width, width)
    network = CIFARResNet32()
    assert num_parameters(network) == expected
    classifier = 64 * 10 + 10
    assert round((expected + classifier) / 1e6, 2) == 0.46
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(layers) + 1 == 32  # and the classifier
    (features,) = network(torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 64, 8, 8)


def test_shortcuts_pass_every_second_pixel_and_add_zeros():
    block = CIFARResNet32().layer2[0]
    x = torch.rand(1, 16, 6, 6)
    shortcut = block.downsample(x)
    assert torch.equal(shortcut[:, :16], x[:, :, ::2, ::2])
    assert shortcut.shape == (1, 32, 3, 3)
    assert not shortcut[:, 16:].any()


def test_resnet_10():
    expected = conv_and_norm(7, 3, 64) + 2 * conv_and_norm(3, 64, 64)
    for width in (128, 256, 512):
        expected += conv_and_norm(3, width // 2, width)
        expected += conv_and_norm(3, width, width)
        expected += conv_and_norm(1, width // 2, width)
    network = ResNet10()
    assert num_parameters(network) == expected
    (features,) = network(torch.zeros(1, 3, 64, 64))
    assert features.shape == (1, 512, 2, 2)


# -- the transform ---------------------------------------------------------


def test_auto_augment_gives_images_of_the_same_kind():
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    augment = CIFARAutoAugment()
    changed = [augment({'img': image})['img'] for _ in range(20)]
    assert {img.shape for img in changed} == {(32, 32, 3)}
    assert {img.dtype for img in changed} == {np.dtype('uint8')}
    assert any((img != image).any() for img in changed)


# -- the metric ------------------------------------------------------------


def statistics_of(image_count):
    return ClassStatistics(
        tuple(map(str, range(len(image_count)))),
        np.array(image_count),
        np.array(image_count),
        sum(image_count),
        sum(image_count),
    )


def evaluate(metric, labels, predictions):
    evaluator = Evaluator(metric)
    for label, prediction in zip(labels, predictions):
        sample = DataSample().set_gt_label(label).set_pred_label(prediction)
        evaluator.process([sample])
    return evaluator.evaluate(len(labels))


def test_groups_at_their_edges():
    metric = ShotAccuracy()
    # many, medium, medium, few
    metric.set_class_statistics(statistics_of([101, 100, 20, 19]))
    labels = [0, 0, 0, 0, 1, 1, 2, 3, 3]
    predictions = [0, 0, 0, 2, 0, 1, 2, 3, 0]
    assert evaluate(metric, labels, predictions) == {
        'accuracy/many': 75.0,
        'accuracy/medium': 75.0,  # the mean of 50 and 100
        'accuracy/few': 50.0,
    }


def test_metric_equals_a_naive_loop():
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 60, 12)
    labels = rng.integers(0, 11, 300)  # no image of the last class
    predictions = np.where(rng.random(300) < 0.5, labels, 3)
    metric = ShotAccuracy(many_above=40, few_below=15)
    metric.set_class_statistics(statistics_of(counts.tolist()))
    groups = {'accuracy/many': [], 'accuracy/medium': [], 'accuracy/few': []}
    for c in range(11):
        correct = [p == c for y, p in zip(labels, predictions) if y == c]
        if counts[c] > 40:
            group = 'accuracy/many'
        elif counts[c] < 15:
            group = 'accuracy/few'
        else:
            group = 'accuracy/medium'
        groups[group].append(100 * sum(correct) / len(correct))
    expected = {name: np.mean(values) for name, values in groups.items()}
    found = evaluate(metric, labels.tolist(), predictions.tolist())
    assert found == pytest.approx(expected)


def test_empty_groups_are_left_out():
    metric = ShotAccuracy()
    metric.set_class_statistics(statistics_of([300, 5]))
    assert evaluate(metric, [0, 0], [0, 1]) == {'accuracy/many': 50.0}


def test_statistics_from_a_file(tmp_path):
    path = tmp_path / 'statistics.json'
    statistics_of([3, 200]).save(path)
    metric = ShotAccuracy(class_statistics=str(path))
    assert evaluate(metric, [0, 1], [0, 0]) == {
        'accuracy/many': 0.0,
        'accuracy/few': 100.0,
    }


def test_metric_without_statistics():
    with pytest.raises(LongTailError, match='ClassStatisticsHook'):
        evaluate(ShotAccuracy(), [0], [0])


def test_metric_with_statistics_of_other_classes():
    metric = ShotAccuracy()
    metric.set_class_statistics(statistics_of([3, 4]))
    with pytest.raises(LongTailError, match=r'label 2, but .* 2 classes'):
        evaluate(metric, [2], [0])


def test_thresholds_that_overlap():
    with pytest.raises(LongTailError, match='few_below is 20'):
        ShotAccuracy(many_above=10, few_below=20)
    ShotAccuracy(many_above=19, few_below=20)
