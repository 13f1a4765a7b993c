"""Telling gateways at once. They ask PostgreSQL by themselves anyway: each second what ended, every
30 s for upstream keys, so a lost push costs that."""

import json
import logging
from functools import cache
from uuid import UUID

import redis
from django.conf import settings

logger = logging.getLogger(__name__)
CHANNEL = "keyturn:ended"
KEYS = "keyturn:keys"


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)


def ended(credentials: list[UUID]) -> bool:
    """Publish that these credentials are no longer good for anything; whether that went out."""
    return _publish(CHANNEL, [str(pk) for pk in credentials])


def replaced(endpoint: str, version: int) -> bool:
    """Publish that this endpoint's upstream key is another one now; whether that went out."""
    return _publish(KEYS, {endpoint: version})


def _publish(channel: str, message: object) -> bool:
    try:
        _client().publish(channel, json.dumps(message))
    except redis.RedisError as error:
        logger.warning("could not push to gateways (%s); they poll", type(error).__name__)
        return False
    return True
