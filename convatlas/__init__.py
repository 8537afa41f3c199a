"""convatlas: an atlas of what every layer of a convolutional network sees."""

__version__ = "0.1.0"


class UserError(Exception):
    """A mistake in what the user gave; its text says what, where and how to mend it."""
