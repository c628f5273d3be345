# Softmax EQL on ImageNet-LT: Tan et al., CVPR 2020,
# https://arxiv.org/abs/2003.05176
# The paper's Table 9, in percent:
# |              | top-1 | many | medium | few  | top-5 |
# |--------------|-------|------|--------|------|-------|
# | softmax EQL  | 36.4  | 49.4 | 32.3   | 14.5 | 61.1  |
# | softmax      | 34.7  | 53.2 | 27.5   | 8.0  | 58.7  |
# lambda = 4.3e-4 of 115,846 images: classes with at most 49 images are tail.
# Run: torchrun --nproc_per_node 16 tools/train.py
#      configs/classification/resnet10_seql_imagenet-lt.py
#      --launcher pytorch
_base_ = 'resnet10_softmax_imagenet-lt.py'
loss = dict(
    _delete_=True,
    type='mmdet.SoftmaxEqualizationClassificationLoss',
    num_classes=1000,
    frequency_threshold=4.3e-4,
    ignore_probability=0.9,
)
model = dict(head=dict(loss=loss))
