"""The gateway as an ASGI application: `uvicorn gateway.asgi:application`."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings")
django.setup()

from gateway.app import Gateway  # noqa: E402 -- needs the settings

application = Gateway()
