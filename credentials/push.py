"""Telling gateways at once. They ask PostgreSQL each second anyway, so a lost push costs that."""

import json
import logging
from functools import cache
from uuid import UUID

import redis
from django.conf import settings

logger = logging.getLogger(__name__)
CHANNEL = "keyturn:ended"


@cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)


def ended(credentials: list[UUID]) -> bool:
    """Publish that these credentials are no longer good for anything; whether that went out."""
    try:
        _client().publish(CHANNEL, json.dumps([str(pk) for pk in credentials]))
    except redis.RedisError as error:
        logger.warning("could not push to gateways (%s); they poll", type(error).__name__)
        return False
    return True
