"""Real servers out of Python packages, and the supervisor that runs all of Keyturn on one host.

`manage.py up`, `manage.py demo` and the tests use it; production doesn't. It needs Linux: it
reads /proc to be sure that a process is its own before it ends it.
"""
