# Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176, section 4.5.
# EQL's Table 5, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 18.5    | 7.3 | 19.3 | 21.9 | 18.4   |
# The paper does not say which loss this row has; here it is softmax.
# Run: tools/train.py configs/comparison/mask-rcnn_r50_fpn_class-aware_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_25e_lvis-v0.5.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
