"""The one error type that is addressed to the person who gave the input."""


class UserError(ValueError):
    """Bad input. The message is one sentence: the value, what was expected, and the fix.

    Jobs print it without a traceback and exit with status 2.
    """
