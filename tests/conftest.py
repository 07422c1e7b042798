"""What has to be said before any test module is imported."""

import pytest

# Shared by tests/contract and tests/live: their asserts are to be explained like those of a test module.
pytest.register_assert_rewrite("tests.contract.target_suite", "tests.contract.life", "tests.contract.world")
