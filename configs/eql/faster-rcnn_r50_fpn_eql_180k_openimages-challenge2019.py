# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' later code, https://github.com/tztztztztz/eqlv2
# Its results, in percent, the most frequent classes first (the repository has
# the rarest first):
# | AP   | AP1  | AP2  | AP3  | AP4  | AP5  |
# |------|------|------|------|------|------|
# | 45.3 | 53.1 | 48.3 | 47.3 | 44.6 | 32.7 |
# lambda is a number of boxes there: 250 of the 500 classes are tail.
# Run: tools/train.py configs/eql/faster-rcnn_r50_fpn_eql_180k_openimages-challenge2019.py
_base_ = 'faster-rcnn_r50_fpn_softmax_180k_openimages-challenge2019.py'
tail_weight = dict(type='InstanceCountTailWeight', instance_threshold=1652)
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=500, prior_prob=None, tail_weight=tail_weight)
# The prior is in the bias, where weight decay acts on it.
init = [
    dict(type='Normal', std=0.01, bias_prob=0.001, override=dict(name='fc_cls')),
    dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
    dict(type='Xavier', distribution='uniform', override=dict(name='shared_fcs')),
]
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls, init_cfg=init)))
