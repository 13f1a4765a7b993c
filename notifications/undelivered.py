"""Why a message didn't go, and whether to try again."""


class Undelivered(Exception):
    """This message didn't go; it may go later."""


class Refused(Undelivered):
    """It never will: whoever takes it won't have it."""


class Unreachable(Undelivered):
    """Nobody takes any message at the moment, so the others needn't be tried either."""
