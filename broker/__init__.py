"""The project: settings, URLs, Celery, errors; mounts everything."""
