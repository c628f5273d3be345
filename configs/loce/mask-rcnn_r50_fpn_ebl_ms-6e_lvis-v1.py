# EBL, Feng et al., ICCV 2021, https://arxiv.org/abs/2108.07507
# No published result of EBL alone. The authors' repository on LVIS v1 has
# LOCE, which adds a memory of features: mask AP 26.6 and box AP 27.4 percent.
# Trains the RPN, fc_cls, fc_reg and the mask head for 6 epochs on the finished
# detector beside it.
# Run: tools/train.py configs/loce/mask-rcnn_r50_fpn_ebl_ms-6e_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_softmax-normed-mask_ms-2x_lvis-v1.py'
base_config = 'mask-rcnn_r50_fpn_softmax-normed-mask_ms-2x_lvis-v1.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax-normed-mask_ms-2x_lvis-v1/epoch_24.pth'
trained = ['rpn_head', 'roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg', 'roi_head.mask_head']
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=trained))
train_cfg = dict(max_epochs=6, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[3, 5], gamma=0.1, end=6),
]
loss_cls = dict(_delete_=True, type='EquilibriumLoss', num_classes=1203)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))
