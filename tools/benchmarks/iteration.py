"""Time a training iteration of Mask R-CNN R50-FPN, and the loss's share in it.

The data are random: two images with boxes and masks of random classes. All
losses train from the same weights at learning rate 0, one after the other, so
that they see the same RoIs. On a GPU with automatic mixed precision::

    python tools/benchmarks/iteration.py --device cuda
    python tools/benchmarks/iteration.py --size 128 --repeats 2

"loss" is forward and backward of loss_cls alone, on as many RoIs. Times are
in ms: medians of the GPU's times, or the least processor times on one thread.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from timing import OBJECTS, add_device, benchmark_parser, seconds_on, show
from torch import Tensor

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.seeding import seed_all

BASE = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
LOSSES: dict[str, dict[str, Any]] = {
    'softmax': dict(type='CrossEntropyLoss', use_sigmoid=False),
    'mmdet Seesaw': dict(type='SeesawLoss'),
    'EQL': dict(type='EqualizationLoss'),
    'SEQL': dict(type='SoftmaxEqualizationLoss'),
    'BAGS': dict(type='BalancedGroupSoftmaxLoss'),
}


def make_batch(
    batch_size: int, size: int, num_classes: int, device: str
) -> dict[str, Any]:
    """Return images (B, 3, size, size) and their objects."""
    random = np.random.default_rng(0)
    samples = []
    for _ in range(batch_size):
        low = random.uniform(0, 0.7, (OBJECTS, 2)) * size
        extent = random.uniform(0.05, 0.3, (OBJECTS, 2)) * size
        boxes = np.concatenate([low, low + extent], 1)
        masks = np.zeros((OBJECTS, size, size), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        labels = random.integers(0, num_classes, OBJECTS)
        shape = dict(img_shape=(size, size), batch_input_shape=(size, size))
        sample = DetDataSample(metainfo=shape | {'pad_shape': (size, size)})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes).float().to(device),
            labels=torch.tensor(labels).to(device),
            masks=BitmapMasks(masks, size, size),
        )
        samples.append(sample)
    images = torch.randn(batch_size, 3, size, size).to(device)
    return dict(inputs=images, data_samples=samples)


def make_detector(loss_cls: dict[str, Any], num_classes: int) -> Any:
    """Build a detector with random weights."""
    model = get_config(BASE).model
    model.backbone.init_cfg = None
    for head in (model.roi_head.bbox_head, model.roi_head.mask_head):
        head.num_classes = num_classes
    if loss_cls['type'] != 'CrossEntropyLoss':
        loss_cls = loss_cls | {'num_classes': num_classes}
    model.roi_head.bbox_head.loss_cls = loss_cls
    seed_all(0)
    detector = MODELS.build(model)
    # Counts fall from 30,000 to 1, as LVIS v1's do.
    count = np.geomspace(30_000, 1, num_classes).astype(np.int64)
    names = tuple(map(str, range(num_classes)))
    statistics = ClassStatistics(names, count, count, 100_000, 30_000)
    loss = detector.roi_head.bbox_head.loss_cls
    if hasattr(loss, 'set_class_statistics'):
        loss.set_class_statistics(statistics)
    return detector.train()


def train_step(
    detector: Any, batch: dict[str, Any], optimizer: Any, scaler: Any
) -> None:
    """Take a training step, whose draws are always the same."""
    seed_all(0)
    kind, is_amp = batch['inputs'].device.type, scaler.is_enabled()
    with torch.autocast(kind, torch.float16, enabled=is_amp):
        losses = detector(**batch, mode='loss')
        loss, _ = detector.parse_losses(losses)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def loss_step(loss_cls: Any, scores: Tensor, labels: Tensor) -> None:
    """Compute the classification loss and its gradient alone."""
    value = loss_cls(
        scores.detach().requires_grad_(),
        labels,
        torch.ones_like(labels, dtype=torch.float),
        avg_factor=float(len(labels)),
    )
    terms = value if isinstance(value, dict) else {'loss': value}
    sum(v for k, v in terms.items() if 'loss' in k).backward()


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        classes=(1203, 'classes'),
        size=(800, 'width and height of the images'),
        batch_size=(2, 'images'),
        repeats=(50, 'measurements of each'),
    )
    args = add_device(parser).parse_args()
    torch.set_num_threads(1)
    init_default_scope('mmdet')
    is_amp = args.device == 'cuda'
    batch = make_batch(args.batch_size, args.size, args.classes, args.device)
    N = 512 * args.batch_size  # RoIs
    labels = torch.randint(0, args.classes, (N,))
    labels[N // 4 :] = args.classes  # Background.
    steps, losses = [], []
    for name, config in LOSSES.items():
        detector = make_detector(config, args.classes).to(args.device)
        optimizer = torch.optim.SGD(detector.parameters(), lr=0.0)
        scaler = torch.amp.GradScaler(args.device, enabled=is_amp)
        step = partial(train_step, detector, batch, optimizer, scaler)
        steps.append((name, step))
        head = detector.roi_head.bbox_head
        scores = torch.randn(N, head.fc_cls.out_features).to(args.device)
        scores = scores.half() if is_amp else scores
        step = partial(
            loss_step, head.loss_cls, scores, labels.to(args.device)
        )
        losses.append((name, step))
    iteration = seconds_on(args.device, steps, args.repeats)
    loss = seconds_on(args.device, losses, args.repeats)
    rows = [
        {
            'loss_cls': name,
            'iteration': 1e3 * seconds,
            'x softmax': seconds / iteration['softmax'],
            'loss': 1e3 * loss[name],
            'share': loss[name] / seconds,
        }
        for name, seconds in iteration.items()
    ]
    title = f'{args.batch_size} images of {args.size} px, {args.classes} '
    title += f'classes, {args.device}, torch {torch.__version__}'
    show(title, rows, args.json)


if __name__ == '__main__':
    main()
