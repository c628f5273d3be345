# Focal loss, the one-stage detector that EFL is compared with.
# Run: tools/train.py configs/glyphs/atss_r18_fpn_focal_glyphs.py
_base_ = [
    '../_base_/models/atss_r18_fpn_narrow.py',
    '../_base_/datasets/glyphs.py',
    '../_base_/schedules/glyphs.py',
    '../_base_/longtail_runtime.py',
]
