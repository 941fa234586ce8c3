"""The version of deqir."""

__version__ = "0.1.0"
