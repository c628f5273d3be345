import pytest
from hook_runs import (
    CLASSIFIER,
    changed_names,
    runner_of,
    saved_weights,
    weights_at_start,
    weights_of,
)

EMA = dict(type='EMAHook', momentum=0.5)
RESTART = dict(type='RestartClassifierHook')


@pytest.fixture(scope='module')
def first(data, tmp_path_factory):
    """The checkpoint of a training with EMA."""
    folder = tmp_path_factory.mktemp('first')
    runner_of(data, folder, custom_hooks=[EMA, RESTART]).train()
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize('is_resumed', [False, True])
def test_classifier_is_reinitialised_but_not_on_a_resume(
    data, tmp_path, first, messages, is_resumed
):
    """With EMA, whose copy is loaded from the checkpoint by itself."""
    runner = runner_of(
        data,
        tmp_path,
        custom_hooks=[RESTART] if is_resumed else [RESTART, EMA],
        load_from=str(first),
        resume=is_resumed,
        train_cfg=dict(max_epochs=2),
    )
    before = weights_at_start(messages(runner))
    names = changed_names(before, saved_weights(first))
    assert names == (set() if is_resumed else CLASSIFIER)
    assert ('fc_cls is re-initialised' in messages.text()) != is_resumed


def test_a_test_run_keeps_the_classifier(data, tmp_path, first):
    runner = runner_of(
        data, tmp_path, custom_hooks=[RESTART], load_from=str(first)
    )
    runner.test()
    assert not changed_names(weights_of(runner), saved_weights(first))
