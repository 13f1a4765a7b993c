"""The whole story with the client that test_client.py generates from the OpenAPI document, next to
which it's copied for mypy to check and Python to run."""

import base64
import hmac
import os
import sys
import time
from uuid import UUID, uuid4

import httpx
from keyturn_client.api.credentials import credentials_retrieve
from keyturn_client.api.grants import grants_credentials_create, grants_end
from keyturn_client.api.profiles import profiles_list
from keyturn_client.api.requests import (
    requests_create,
    requests_retrieve,
    requests_reviews_create,
)
from keyturn_client.client import AuthenticatedClient
from keyturn_client.models.check_out import CheckOut
from keyturn_client.models.checked_out import CheckedOut
from keyturn_client.models.credential import Credential
from keyturn_client.models.decide import Decide
from keyturn_client.models.file import File
from keyturn_client.models.grant import Grant
from keyturn_client.models.problem import Problem
from keyturn_client.models.request import Request
from keyturn_client.models.review import Review
from keyturn_client.models.verdict_enum import VerdictEnum

url = os.environ["KEYTURN_URL"]
asker = AuthenticatedClient(base_url=url, token=os.environ["KEYTURN_TOKEN"])
reviewer = AuthenticatedClient(base_url=url, token=os.environ["REVIEWER_TOKEN"])


def code() -> str:
    """What the reviewer's authenticator app shows (RFC 6238)."""
    secret = base64.b32decode(os.environ["AUTHENTICATOR"])
    digest = hmac.digest(secret, int(time.time() // 30).to_bytes(8), "sha1")
    start = digest[-1] & 15
    return f"{(int.from_bytes(digest[start : start + 4]) & 0x7FFFFFFF) % 1_000_000:06}"


def find() -> UUID:
    page = profiles_list.sync(client=asker, slug=os.environ["PROFILE"])
    assert page is not None, page
    assert not isinstance(page, Problem), page
    return page.results[0].id


def ask(profile: UUID) -> Request:
    body = File(profile=profile, justification="Compare two prompts.", duration="PT1H")
    key = str(uuid4())
    filed = requests_create.sync(client=asker, body=body, idempotency_key=key)
    again = requests_create.sync(client=asker, body=body, idempotency_key=key)
    assert again == filed, again
    assert isinstance(filed, Request), filed
    assert filed.state == "pending", filed
    return filed


def refused_to_oneself(request: UUID) -> None:
    body = Decide(verdict=VerdictEnum.APPROVE)
    told = requests_reviews_create.sync(id=request, client=asker, body=body)
    assert isinstance(told, Problem), told
    assert told.status == 403, told


def review(request: UUID) -> None:
    body = Decide(verdict=VerdictEnum.APPROVE, reason="Go ahead.")
    alone = requests_reviews_create.sync(id=request, client=reviewer, body=body)
    assert isinstance(alone, Problem), alone
    assert alone.code == "step-up-needed", alone
    proving = reviewer.with_headers({"Keyturn-Second-Factor": code()})
    given = requests_reviews_create.sync(id=request, client=proving, body=body)
    assert isinstance(given, Review), given


def granted(request: UUID) -> UUID:
    found = requests_retrieve.sync(id=request, client=asker)
    assert isinstance(found, Request), found
    assert found.state == "approved", found
    assert found.grant is not None
    return found.grant


def use(out: CheckedOut) -> int:
    answer = httpx.post(
        f"{out.base_url}/v1/chat/completions",
        headers={"Authorization": f"Bearer {out.secret}"},
        json={"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]},
    )
    return answer.status_code


def main() -> None:
    request = ask(find())
    refused_to_oneself(request.id)
    review(request.id)
    grant = granted(request.id)
    out = grants_credentials_create.sync(id=grant, client=asker, body=CheckOut())
    assert isinstance(out, CheckedOut), out
    assert use(out) == 200
    ended = grants_end.sync(id=grant, client=asker)
    assert isinstance(ended, Grant), ended
    assert ended.end_reason == "given_back", ended
    assert use(out) == 401
    deadline = time.monotonic() + 60
    while True:
        gone = credentials_retrieve.sync(id=out.credential.id, client=asker)
        assert isinstance(gone, Credential), gone
        if gone.state == "revoked" or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    assert gone.state == "revoked", gone
    assert gone.proof, gone
    sys.stdout.write(f"revoked: {gone.proof}")


main()
