# A base beside any others, or --cfg-options runner_type=mmdet.ResumableRunner:
# the training can be stopped at any time and goes on from there with --resume.
# It names the training loop and the hooks that do it; docs/survival.md.
runner_type = 'mmdet.ResumableRunner'
