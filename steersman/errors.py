"""The one kind of error a user can mend; everything else is a bug."""


class UserError(ValueError):
    """What was wrong, where, and what to do; the command line prints it and exits with 2."""
