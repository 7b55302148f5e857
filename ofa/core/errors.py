"""Errors that a user can cause. Each message names the value, what is allowed and the next step."""

from collections.abc import Iterable
from difflib import get_close_matches


class OfaError(Exception):
    """Base of all errors that a user can cause; the command line prints one line and exits with code 2."""


class SpaceError(OfaError):
    """An arch, a choice or a set of rows does not belong to the search space."""


class FamilyError(OfaError):
    """A family is unknown, its options are wrong, or its slots contradict each other."""


class RecipeError(OfaError):
    """A recipe cannot be read, or a key or value in it is wrong."""


class DataError(OfaError):
    """A data set or an image is missing, unreadable, or unfit for the request."""


class CheckpointError(OfaError):
    """A checkpoint or weights file is truncated, or holds another network."""


class TrainError(OfaError):
    """A training cannot start or continue."""


class DeviceError(OfaError):
    """A device is unknown or cannot run here."""


class TableError(OfaError):
    """A latency table is malformed, or belongs to another family or device."""


class PredictorError(OfaError):
    """An accuracy predictor cannot be fitted to what was measured."""


class SearchError(OfaError):
    """A setting of a search is out of range, or an objective or constraint gives no usable number."""


class InfeasibleError(OfaError):
    """No arch meets the constraints; the message gives the tightest value seen."""


class ExportError(OfaError):
    """A network cannot be exported, or its file computes something else than the network."""


class BundleError(OfaError):
    """A bundle is incomplete or altered, or a policy or runtime does not fit it."""


class RunError(OfaError):
    """A run directory cannot be used: another recipe made it, another process uses it, or a stage is missing."""


def nearest(name: str, names: Iterable[str], limit: int = 8) -> str:
    """List the names most like a mistyped one, or the first `limit` if none is close, to end an error message."""
    names = list(names)
    if close := get_close_matches(name, names, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(close)}?"
    return f"choose from {listed(names, limit)}"


def listed(names: Iterable[str], limit: int = 8) -> str:
    """Join names by commas; beyond `limit`, say how many there are."""
    names = list(names)
    return ", ".join(names[:limit]) + (f", ... ({len(names)} in all)" if len(names) > limit else "")


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the message of a foreign exception on one line, shortened."""
    return " ".join((str(error) or type(error).__name__).split())[:limit]
