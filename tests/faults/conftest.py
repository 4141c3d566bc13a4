"""What the roles log is known to the tests of faults too."""

from tests.consumers.conftest import logged as logged  # a fixture
