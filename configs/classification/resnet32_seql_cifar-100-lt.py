# Softmax EQL on CIFAR-100-LT: Tan et al., CVPR 2020,
# https://arxiv.org/abs/2003.05176
# The paper's Table 7, top-1 and top-5: 43.38 and 71.94 (softmax 41.33, 67.75).
# lambda = 3e-3 of 9,502 images: classes with at most 28 images are tail.
# Run: torchrun --nproc_per_node 2 tools/train.py
#      configs/classification/resnet32_seql_cifar-100-lt.py
#      --launcher pytorch
_base_ = 'resnet32_softmax_cifar-100-lt.py'
loss = dict(
    _delete_=True,
    type='mmdet.SoftmaxEqualizationClassificationLoss',
    num_classes=100,
    frequency_threshold=3e-3,
    ignore_probability=0.95,
)
model = dict(head=dict(loss=loss))
