import pytest

from mlopsdeploy import errors


@pytest.mark.parametrize(
    ("name", "code"),
    [("MlopsDeployError", 1), ("ConfigError", 2), ("InputError", 2), ("ModelError", 2)],
)
def test_exit_codes(name, code):
    error = getattr(errors, name)
    assert issubclass(error, errors.MlopsDeployError)
    assert error.exit_code == code
