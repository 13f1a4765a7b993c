"""The gateway as an ASGI application: served by `python -m gateway`."""

import logging
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings")
django.setup()

from gateway.app import Gateway  # noqa: E402 -- needs the settings

# uvicorn logs the path and query of each WebSocket, beside the access log that is off.
logging.getLogger("uvicorn.error").addFilter(lambda line: '"WebSocket %s"' not in str(line.msg))

application = Gateway()
