"""The one exception for mistakes that a user can mend.

The command line prints its text without a traceback; in Python it is an ordinary `ValueError`. Its text says
what was given, what is needed and what to type.
"""


class UserError(ValueError):
    """Something was given that can not work; the message says what to type instead."""
