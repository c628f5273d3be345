# The paper's baseline on ImageNet-LT: Tan et al., CVPR 2020,
# https://arxiv.org/abs/2003.05176
# The paper's Table 9, in percent:
# | top-1 | many | medium | few | top-5 |
# |-------|------|--------|-----|-------|
# | 34.7  | 53.2 | 27.5   | 8.0 | 58.7  |
# Run: torchrun --nproc_per_node 16 tools/train.py
#      configs/classification/resnet10_softmax_imagenet-lt.py
#      --launcher pytorch
_base_ = [
    '../_base_/models/resnet10.py',
    '../_base_/datasets/imagenet-lt.py',
    '../_base_/schedules/imagenet-lt_12000it.py',
    '../_base_/classification_runtime.py',
]
