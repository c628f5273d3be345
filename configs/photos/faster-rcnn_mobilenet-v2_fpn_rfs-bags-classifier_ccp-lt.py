# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Trains fc_cls for 4 epochs on the finished RFS detector beside it, and
# samples as that one did.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_rfs-bags-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_bags-classifier_ccp-lt.py'
base_config = 'faster-rcnn_mobilenet-v2_fpn_rfs_ccp-lt.py'
load_from = 'work_dirs/faster-rcnn_mobilenet-v2_fpn_rfs_ccp-lt/epoch_4.pth'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=0.058))
