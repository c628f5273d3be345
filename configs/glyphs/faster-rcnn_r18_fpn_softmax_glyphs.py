_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn_narrow.py',
    '../_base_/datasets/glyphs.py', '../_base_/schedules/glyphs.py',
    '../_base_/longtail_runtime.py'
]
