# The paper's baseline on CIFAR-100-LT: Tan et al., CVPR 2020,
# https://arxiv.org/abs/2003.05176
# The paper's Table 7, top-1 and top-5: 41.33 and 67.75.
# Run: torchrun --nproc_per_node 2 tools/train.py
#      configs/classification/resnet32_softmax_cifar-100-lt.py
#      --launcher pytorch
_base_ = [
    '../_base_/models/resnet32_cifar.py',
    '../_base_/datasets/cifar-100-lt.py',
    '../_base_/schedules/cifar-100-lt_12800it.py',
    '../_base_/classification_runtime.py',
]
