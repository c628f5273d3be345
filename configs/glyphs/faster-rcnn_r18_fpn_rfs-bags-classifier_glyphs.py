# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Trains fc_cls for 4 epochs on the finished RFS detector beside it, and
# samples as that one did.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_rfs-bags-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_bags-classifier_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_rfs_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_rfs_glyphs/epoch_4.pth'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=0.02))
