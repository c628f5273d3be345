# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176, in Deformable DETR.
# V3Det, Wang et al., ICCV 2023, has 13,204 classes; lambda is the one that
# puts 9 % of the images' classes into the tail. No published result;
# docs/support.md says why little is to be expected. The base clips gradients.
# Run: tools/train.py configs/dense/deformable-detr-refine-twostage_r50_eql_50e_v3det.py
_base_ = 'mmdet::v3det/deformable-detr-refine-twostage_r50_8xb4_sample1e-3_v3det_50e.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
train_dataloader = dict(dataset=dict(oversample_thr=0.0))  # no RFS
loss_cls = dict(_delete_=True, type='DenseEqualizationLoss', num_classes=13204, use_sigmoid=True, tail_ratio=0.091)
model = dict(bbox_head=dict(type='LongTailDeformableDETRHead', loss_cls=loss_cls))
