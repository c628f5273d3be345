# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' released code, https://github.com/tztztztztz/eql.detectron2
# Its results, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 24.0    | 9.4 | 25.2 | 28.4 | 23.6   |
# lambda = 1.7538e-3 of all 57,263 images, their 1.77e-3 of the 56,740
# annotated ones: 915 tail classes, tail ratio 9.1 %.
# Run: tools/train.py configs/eql/mask-rcnn_r50-caffe_fpn_eql_ms-90k_lvis-v0.5.py
_base_ = 'mask-rcnn_r50-caffe_fpn_softmax_ms-90k_lvis-v0.5.py'
loss_cls = dict(
    _delete_=True, type='EqualizationLoss', num_classes=1230, frequency_threshold=1.7538e-3, prior_prob=None
)
# The prior is in the bias, where weight decay acts on it.
init = [
    dict(type='Normal', std=0.01, bias_prob=0.001, override=dict(name='fc_cls')),
    dict(type='Normal', std=0.001, override=dict(name='fc_reg')),
    dict(type='Xavier', distribution='uniform', override=dict(name='shared_fcs')),
]
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls, init_cfg=init)))
