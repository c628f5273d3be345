# cRT, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# Re-initialises fc_cls and trains it with class-aware sampling, for 4 epochs on
# the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_crt_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
default_hooks = dict(restart_classifier=dict(type='RestartClassifierHook'))
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
