"""Fixtures of the losses' tests."""

import logging

import pytest
from mmengine.logging import MMLogger

from mmdet_longtail.models.losses.base import warn_once


@pytest.fixture
def said(caplog):
    """The warnings of mmengine's logger, which does not propagate."""
    warn_once.cache_clear()
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
    logger.removeHandler(caplog.handler)
