import pytest
import torch
from hook_runs import (
    BAGS,
    CLASSES,
    CLASSIFIER,
    WEIGHT,
    changed_names,
    runner_of,
    saved_weights,
    weights_at_start,
    weights_of,
)

ROWS = slice(CLASSES)
CONVERT = dict(type='ConvertClassifierHook')


def test_load_from_is_converted_by_the_hook_of_the_statistics(
    data, tmp_path, trained, messages
):
    softmax = trained('softmax')
    runner = runner_of(data, tmp_path, BAGS, load_from=str(softmax))
    before = weights_at_start(messages(runner))
    saved = saved_weights(softmax)
    assert torch.equal(before[WEIGHT][ROWS], saved[WEIGHT][ROWS])
    assert before[WEIGHT].shape != saved[WEIGHT].shape
    assert 'is not converted' not in messages.text()


def test_the_hook_works_alone(data, tmp_path, trained):
    """To a loss that needs no statistics, from one that does."""
    eql = trained('EQL')
    runner = runner_of(
        data,
        tmp_path,
        None,
        hook=None,
        custom_hooks=[CONVERT],
        load_from=str(eql),
    )
    before = weights_at_start(runner)
    assert before[WEIGHT].shape == (CLASSES + 1, 16)
    saved = saved_weights(eql)
    assert torch.equal(before[WEIGHT][ROWS], saved[WEIGHT][ROWS])


@pytest.mark.parametrize('task', ['resume', 'test'])
def test_a_resume_and_a_test_convert_nothing(data, tmp_path, trained, task):
    softmax = trained('softmax')
    runner = runner_of(
        data,
        tmp_path,
        BAGS,
        hook=None,
        custom_hooks=[CONVERT],
        load_from=str(softmax),
        resume=task == 'resume',
    )
    # The resumed training has no epoch left.
    runner.train() if task == 'resume' else runner.load_or_resume()
    weight, saved = weights_of(runner)[WEIGHT], saved_weights(softmax)[WEIGHT]
    assert not torch.equal(weight[ROWS], saved[ROWS])


def test_the_classifier_of_other_classes_is_reinitialised(
    data, tmp_path, trained, messages
):
    checkpoint = torch.load(trained('softmax'), weights_only=True)
    checkpoint['meta']['dataset_meta']['classes'] = list('abcd')
    del checkpoint['class_statistics']
    torch.save(checkpoint, tmp_path / 'other.pth')
    other = str(tmp_path / 'other.pth')
    runner = runner_of(data, tmp_path / 'stage', BAGS, load_from=other)
    messages(runner).train()
    assert "not converted: class 0 is 'a' in the checkpoint" in messages.text()
    assert 'fc_cls.weight is re-initialised: (5, 16)' in messages.text()


# -- the classifier from scratch -------------------------------------------

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
