"""tests/digests.py, which compares two commits by hand: that it leaves out nothing that can be chosen."""

import pytest
from digests import CONFIGURATIONS
from helpers import CONF


@pytest.mark.parametrize("group", ["dist", "estimator", "baseline"])
def test_every_option_is_trained(group):
    given = {word for overrides in CONFIGURATIONS.values() for word in overrides.split()}
    wanted = {f"{group}={path.stem}" for path in (CONF / group).glob("*.yaml")}
    assert wanted <= given, f"append to CONFIGURATIONS in tests/digests.py: {wanted - given}"
