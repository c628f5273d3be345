_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2), class_statistics=dict(type='ClassStatisticsHook'))
