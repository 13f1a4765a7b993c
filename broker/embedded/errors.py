"""What can go wrong while starting, in words for whoever typed the command."""


class StartError(Exception):
    """Something didn't start. The message says what, why and what to do about it."""
