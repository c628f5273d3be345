# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# No published result.
# Trains fc_cls for 12 epochs on the finished RFS detector beside it. It
# samples as that one did.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_rfs-bags-classifier_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_bags-classifier_ms-1x_lvis-v1.py'
base_config = 'mask-rcnn_r50_fpn_rfs_ms-1x_lvis-v1.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_rfs_ms-1x_lvis-v1/epoch_12.pth'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))
