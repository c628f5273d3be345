# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The paper's Table 6, in percent:
# | AP    | AP1   | AP2   | AP3   | AP4   | AP5   |
# |-------|-------|-------|-------|-------|-------|
# | 56.50 | 64.44 | 59.30 | 59.74 | 57.02 | 42.00 |
# The paper does not say which loss this row has; here it is sigmoid.
# Run: tools/train.py configs/eql/faster-rcnn_r50_fpn_class-aware_1x_openimages-challenge2019.py
_base_ = 'faster-rcnn_r50_fpn_sigmoid_1x_openimages-challenge2019.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
