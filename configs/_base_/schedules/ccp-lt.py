_base_ = 'glyphs.py'
# The backbone is trained already.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))))
