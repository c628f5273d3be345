# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Its authors' later repository on LVIS v1 (their mask AP r/c/f):
# softmax 16.1 0.0/12.0/27.4, EQL 18.6 2.1/17.4/27.2.
# lambda = 1.0914e-3 of all 100,170 images, their 1.1e-3 of the 99,388
# annotated ones: 815 tail classes, tail ratio 5.9 %.
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql_ms-1x_lvis-v1.py
_base_ = 'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
train_dataloader = dict(dataset=dict(oversample_thr=0.0))  # no RFS
loss_cls = dict(
    _delete_=True,
    type='EqualizationLoss',
    num_classes=1203,
    frequency_threshold=1.0914e-3)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))
