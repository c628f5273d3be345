# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The paper's Table 1, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 22.8    | 11.3 | 24.7 | 25.1 | 23.3   |
# lambda = 1.76e-3 of the 57,263 images: 915 tail classes, tail ratio 9.1 %.
# Tail classes that an image was checked for are not spared (section 4.2).
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_sigmoid_25e_lvis-v0.5.py'
loss_cls = dict(frequency_threshold=1.76e-3)
train_dataloader = dict(dataset=dict(type='FederatedLVISV05Dataset'))
model = dict(roi_head=dict(type='LongTailStandardRoIHead', bbox_head=dict(loss_cls=loss_cls)))
