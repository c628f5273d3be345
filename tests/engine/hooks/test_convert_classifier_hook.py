import pytest
import torch
from hook_runs import (
    BAGS,
    CLASSES,
    WEIGHT,
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
    assert "is not converted: class 0 is 'disc'" in messages.text()
    assert 'fc_cls.weight is re-initialised: (5, 16)' in messages.text()
