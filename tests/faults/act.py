"""One action in a process of its own, which a test kills there (tests/faults/killing.py):

    python -m tests.faults.act LOOT check_out GRANT

LOOT is a file that keeps each answer of Vault's to this process, with the secrets in it: what died
with the process without anybody having been told.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import requests


def keep_loot(path: Path) -> None:
    send = requests.Session.send

    def sending(
        self: requests.Session, request: requests.PreparedRequest, **options: Any
    ) -> requests.Response:
        answer = send(self, request, **options)
        told = answer.headers.get("Content-Type") == "application/json" and answer.content
        if told and "/approle/login" not in (request.url or ""):
            with path.open("a") as file:
                file.write(json.dumps({"path": request.path_url, "said": answer.json()}) + "\n")
        return answer

    requests.Session.send = sending  # type: ignore[method-assign]


def check_out(grant: str, *options: str) -> None:
    from accessrequests.models import Grant
    from credentials import actions

    holder = Grant.objects.get(pk=grant).holder
    print(actions.check_out(by=holder, grant_id=grant, wrap="wrap" in options).secret)  # noqa: T201


def end_grant(grant: str) -> None:
    from accessrequests.states import EndReason
    from credentials import actions

    actions.end_grant(grant_id=grant, by=None, reason=EndReason.REVOKED)


def sweep() -> None:
    from credentials import actions

    actions.sweep()


def call(verb: str, *arguments: str) -> None:
    """`call credentials.actions.some_module:verb name=value`, for verbs without one above."""
    from importlib import import_module

    module, _, name = verb.partition(":")
    getattr(import_module(module), name)(**dict(each.split("=", 1) for each in arguments))


ACTIONS: dict[str, Callable[..., None]] = {
    "check_out": check_out,
    "end_grant": end_grant,
    "sweep": sweep,
    "call": call,
}


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "broker.settings")
    django.setup()
    from audit.context import Origin, working_for

    keep_loot(Path(sys.argv[1]))
    via = "worker" if os.environ["VAULT_ROLE_ID"] == "worker" else "api"
    with working_for(Origin(via=via)):
        ACTIONS[sys.argv[2]](*sys.argv[3:])


if __name__ == "__main__":
    main()
