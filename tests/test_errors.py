import pytest

from ghostnets import errors


def test_unknown_name_error_suggests_close_matches():
    error = errors.UnknownNameError("model", "ghostnet_10", ["ghostnet_100", "resnet"])
    assert "did you mean ghostnet_100?" in str(error)
    assert "known are: a, b" in str(errors.UnknownNameError("thing", "zzz", ["b", "a"]))


def test_errors_inherit_builtins():
    for error, builtin in [
        (errors.DataError, ValueError),
        (errors.StorageError, OSError),
        (errors.MissingExtraError, ImportError),
        (errors.UnknownNameError, LookupError),
    ]:
        assert issubclass(error, builtin)
        assert issubclass(error, errors.GhostNetsError)


def test_missing_library_error_names_extra():
    with pytest.raises(errors.MissingExtraError, match=r"needs no_such_library.*pip install 'ghostnets\[explain\]'"):
        errors.require("no_such_library", extra="explain")
