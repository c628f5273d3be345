# AP by bins of training boxes besides.
_base_ = 'lvis_v0.5_800.py'
val_evaluator = dict(bin_edges=(10, 100, 1000))
test_evaluator = val_evaluator
