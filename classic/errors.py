"""The exception for mistakes that a learner can mend: its text says what was given, what is needed, what to type.

The commands print it without a traceback; in Python it is an ordinary `ValueError`.
"""


class LessonError(ValueError):
    """Something was given that can not work; the message says what to type instead."""


class Diverged(LessonError):
    """A loss or a weight is nan or infinite; the message says which, when, and what to type."""
