"""Portal and API as a WSGI application."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings")
application = get_wsgi_application()

from audit.clock import check_skew  # noqa: E402 -- needs the settings

check_skew()
