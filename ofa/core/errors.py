"""The errors a user can cause. Each message names the value, what is allowed and the next step."""


class OfaError(Exception):
    """Base of every error that a user can cause; the command line turns it into exit code 2."""


class SpaceError(OfaError):
    """An arch, a choice or a set of rows does not belong to the search space."""


class FamilyError(OfaError):
    """A family is unknown, its options are wrong, or its slots contradict each other."""


class RecipeError(OfaError):
    """A recipe cannot be read, or a key or value in it is wrong."""


class DataError(OfaError):
    """A data set or an image is missing, unreadable, or does not fit what is asked of it."""


class CheckpointError(OfaError):
    """A checkpoint or weights file is truncated, or belongs to something else."""


class TrainError(OfaError):
    """A training cannot start or go on."""


class DeviceError(OfaError):
    """A device is unknown or cannot run here."""


class TableError(OfaError):
    """A latency table is malformed, or belongs to another family or device."""


class InfeasibleError(OfaError):
    """No arch meets the constraints; the message carries the tightest value seen."""


class ExportError(OfaError):
    """An exported model does not compute what the PyTorch model computes."""


class BundleError(OfaError):
    """A bundle is incomplete or changed, or a policy or runtime does not fit it."""


class RunError(OfaError):
    """A run directory cannot be used: it belongs to another recipe, or a stage is missing."""
