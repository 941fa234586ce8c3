"""The errors a user can meet; each message is one sentence that names the input, what is wrong and what to do."""


class DeqirError(Exception):
    """Base of every error that deqir raises on purpose."""


class OptionError(DeqirError, ValueError):
    """An option or argument has a value that does not fit."""


class ShapeError(DeqirError, ValueError):
    """A tensor or image has a shape that does not fit the operator, the mask or the prior."""


class NonFiniteError(DeqirError, ValueError):
    """A tensor holds NaN or infinite values."""


class NondeterminismError(DeqirError):
    """A prior answers differently when it is asked the same twice, so that its chain has no fixed point."""


class ImageReadError(DeqirError):
    """A file could not be read as an image."""


class RecordReadError(DeqirError):
    """A file of records of restorations could not be read."""


class OutputError(DeqirError):
    """A result could not be written."""


class UnsupportedCheckpointError(DeqirError):
    """A folder or file is not a prior that deqir can load."""


class DownloadError(DeqirError):
    """A prior could not be fetched from the hub, or is not in its cache."""


class RunReadError(DeqirError):
    """A saved run, or the settings of one, could not be read."""


class DeviceError(DeqirError):
    """The device asked for is not available, or out of memory."""


class RankError(DeqirError):
    """A process of a distributed job failed, or lost another one; the whole job ends."""


class MissingExtraError(DeqirError, ImportError):
    """An optional dependency is needed that is not installed."""


class ConvergenceWarning(UserWarning):
    """An iterative solve ended before it met its tolerance."""
