"""Fixtures of the tools that edit classifiers."""

import pytest
from classifier_files import write_project
from mmengine.logging import MMLogger


@pytest.fixture(autouse=True)
def _no_stale_logger():
    # One that a test made writes to a stdout that the next does not have.
    MMLogger._instance_dict.clear()


@pytest.fixture(scope='package')
def project(tmp_path_factory):
    return write_project(tmp_path_factory.mktemp('project'))
