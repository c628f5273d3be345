"""Exported classifiers: torch.export, ONNX, and torch.compile."""

import numpy as np
import onnxruntime
import pytest
import torch
from loss_cases import CASES
from loss_contract import INSTANCE_COUNT, C, bbox_head, statistics_of
from mmdet.registry import MODELS
from torch import nn
from torch.export import Dim

IN_ROI_HEADS = [name for name in CASES if MODELS.get(name).custom_activation]
# One of each form of probabilities: an export takes seconds.
TO_ONNX = (
    'EqualizationLoss',
    'EqualizationLossV2',
    'SoftmaxEqualizationLoss',
    'SyncSeesawLoss',
    'BalancedGroupSoftmaxLoss',
)
NUM_IMAGES = 2


class Classifier(nn.Module):
    """RoI features of a batch of images to probabilities (B, N, C + 1)."""

    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        loss = dict(type=name, num_classes=C, **CASES[name].settings)
        self.head = bbox_head(loss)
        nn.init.normal_(self.head.fc_cls.weight, std=20)  # large scores
        self.head.loss_cls.set_class_statistics(statistics_of(INSTANCE_COUNT))
        self.eval().requires_grad_(False)

    def forward(self, features):
        cls_score, _ = self.head(features)
        # As mmdeploy does it.
        cls_score = cls_score.reshape(NUM_IMAGES, -1, cls_score.size(-1))
        return self.head.loss_cls.get_activation(cls_score)


def features_of(num_rois):
    generator = torch.Generator().manual_seed(num_rois)
    shape = (NUM_IMAGES * num_rois, 4, 2, 2)
    return torch.randn(shape, generator=generator)


def dynamic_rows():
    """Any number of RoIs per image."""
    return {'features': {0: NUM_IMAGES * Dim('num_rois', min=2)}}


@pytest.mark.parametrize('name', IN_ROI_HEADS)
def test_torch_export(name):
    classifier = Classifier(name)
    program = torch.export.export(
        classifier, (features_of(7),), dynamic_shapes=dynamic_rows()
    )
    for num_rois in (7, 20):
        features = features_of(num_rois)
        torch.testing.assert_close(
            program.module()(features), classifier(features)
        )


@pytest.mark.parametrize('name', TO_ONNX)
def test_onnx(name, tmp_path):
    classifier = Classifier(name)
    path = tmp_path / 'classifier.onnx'
    torch.onnx.export(
        classifier,
        (features_of(7),),
        path,
        input_names=['features'],
        dynamo=True,
        dynamic_shapes=dynamic_rows(),
        verbose=False,
    )
    session = onnxruntime.InferenceSession(
        path, providers=['CPUExecutionProvider']
    )
    for num_rois in (7, 20):
        features = features_of(num_rois)
        (probs,) = session.run(None, {'features': features.numpy()})
        expected = classifier(features).numpy()
        assert probs.shape == (NUM_IMAGES, num_rois, C + 1)
        np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-5)
        assert np.ptp(expected) > 0.1


@pytest.mark.parametrize('name', IN_ROI_HEADS)
def test_compiled_without_a_graph_break(name):
    torch.compiler.reset()  # Each loss recompiles, which has a limit.
    classifier = Classifier(name)
    compiled = torch.compile(classifier, backend='eager', fullgraph=True)
    features = features_of(7)
    torch.testing.assert_close(compiled(features), classifier(features))
