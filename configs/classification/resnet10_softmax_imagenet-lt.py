# The paper's baseline on ImageNet-LT: Tan et al., CVPR 2020,
# https://arxiv.org/abs/2003.05176
# The paper's Table 9: top-1 34.7, many/medium/few 53.2/27.5/8.0, top-5 58.7.
# Run: torchrun --nproc_per_node 16 tools/train.py
#      configs/classification/resnet10_softmax_imagenet-lt.py
#      --launcher pytorch
_base_ = [
    '../_base_/models/resnet10.py',
    '../_base_/datasets/imagenet-lt.py',
    '../_base_/schedules/imagenet-lt_12000it.py',
    '../_base_/classification_runtime.py',
]
