"""The errors a user can meet; each message is one sentence that names the input, what is wrong and what to do."""


class DeqirError(Exception):
    """Base of every error that deqir raises on purpose."""


class OptionError(DeqirError, ValueError):
    """An option or argument has a value that does not fit."""


class ShapeError(DeqirError, ValueError):
    """A tensor or image has a shape that does not fit the operator, the mask or the prior."""


class NonFiniteError(DeqirError, ValueError):
    """A tensor holds NaN or infinite values."""


class ImageReadError(DeqirError):
    """A file could not be read as an image."""


class OutputError(DeqirError):
    """A result could not be written."""


class UnsupportedCheckpointError(DeqirError):
    """A folder or file is not a prior that deqir can load."""


class RunReadError(DeqirError):
    """A saved run, or the settings of one, could not be read."""


class MissingExtraError(DeqirError):
    """An optional package that a feature needs is not installed."""


class DeviceError(DeqirError):
    """The device asked for is not available, or out of memory."""
