"""Calls and meters as the gateway leaves them, made by hand."""

import datetime as dt
from typing import Any

from accessrequests.models import Grant
from audit import clock
from audit.ids import new_id
from credentials.models import Credential
from gateway.models import Call, Meter


def call(grant: Grant, *, ago: float = 1.0, **fields: Any) -> Call:
    """One call of so many seconds ago."""
    credential = Credential.objects.filter(grant=grant).first()
    usual = {
        "at": clock.now() - dt.timedelta(seconds=ago),
        "trace": str(new_id()),
        "grant": grant,
        "credential_id": credential.pk if credential else new_id(),
        "endpoint_id": grant.request.profile.endpoint_id,
        "method": "POST",
        "path": "/v1/chat/completions",
        "model": "demo-small",
        "status": 200,
        "input_tokens": 120,
        "output_tokens": 80,
        "charged_tokens": 200,
        "request_bytes": 900,
        "response_bytes": 1800,
        "first_byte_ms": 81.0,
        "duration_ms": 412.0,
        "client": "192.0.2.9",
    }
    return Call.objects.create(**usual | fields)


def refused(grant: Grant, code: str = "tool_not_granted", **fields: Any) -> Call:
    """One call that the gateway turned away."""
    nothing = {"input_tokens": None, "output_tokens": None, "charged_tokens": 0}
    return call(grant, status=403, refusal=code, first_byte_ms=None, **nothing | fields)


def used(grant: Grant, **fields: Any) -> Meter:
    """What the grant has spent, as its calls say, unless other numbers are given."""
    calls = list(Call.objects.filter(grant=grant))
    usual = {
        "calls": len(calls),
        "refused": sum(bool(each.refusal) for each in calls),
        "input_tokens": sum(each.input_tokens or 0 for each in calls),
        "output_tokens": sum(each.output_tokens or 0 for each in calls),
        "charged_tokens": sum(each.charged_tokens for each in calls),
        "last_call_at": max((each.at for each in calls), default=None),
    }
    meter, _ = Meter.objects.update_or_create(grant=grant, defaults=usual | fields)
    return meter
