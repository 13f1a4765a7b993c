"""A rotator for the tests' upstream, over its real key management, and processes that use it."""

import time
from typing import Any

import httpx

from credentials.actions import rotate_due
from credentials.models import Rotation
from credentials.rotators import rotators
from credentials.rotators.base import Job, New, ProviderError, Rotator


class Provided(Rotator):
    slug = "provided"
    label = "Tests’ provider"

    def create(self, job: Job) -> New:
        for each in _ask(job, "GET", f"?name={job.name}")["keys"]:
            _ask(job, "DELETE", f"/{each['id']}")
        made = _ask(job, "POST", "", {"name": job.name})
        return New(made["key"], {"id": made["id"]})

    def retire(self, job: Job) -> None:
        if not job.old:
            raise ProviderError("The old key isn’t one that Keyturn made.")
        _ask(job, "DELETE", f"/{job.old['id']}")


class OneAtATime(Provided):
    """Holds one key: the new one ends all others."""

    slug = "one_at_a_time"
    label = "Tests’ provider of one key"
    keeps_both = False

    def create(self, job: Job) -> New:
        made = super().create(job)
        for each in _ask(job, "GET", "")["keys"]:
            if each["id"] != made.handle["id"]:
                _ask(job, "DELETE", f"/{each['id']}")
        return made


def _ask(job: Job, method: str, path: str, body: Any = None) -> Any:
    headers = {"Authorization": f"Bearer {job.admin_key}"}
    try:
        url = f"{job.upstream_url}/.keys{path}"
        answer = httpx.request(method, url, json=body, headers=headers, timeout=5)
    except httpx.HTTPError as error:
        raise ProviderError(f"The provider can’t be reached: {error}", unknown=True) from error
    if answer.status_code == 404 and method == "DELETE":
        return {}
    if answer.status_code >= 400:
        raise ProviderError(f"The provider answers {answer.status_code} to {method}.")
    return answer.json()


def install() -> None:
    """Let endpoints be rotated by these."""
    for rotator in (Provided(), OneAtATime()):
        rotators()[rotator.slug] = rotator


def work(seconds: float = 30) -> None:
    """What a worker's ticker does, until nothing is open."""
    install()
    until = time.monotonic() + seconds
    while Rotation.objects.open().exists() and time.monotonic() < until:
        if not rotate_due():
            time.sleep(0.1)


install()
