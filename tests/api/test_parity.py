"""Whatever can be done in the portal can be done through the API, or it's said why not."""

import re

from django.conf import settings
from django.test import RequestFactory
from django.urls import URLPattern

from broker import urls_portal
from broker.reference import resources
from tests.api.test_actors import MATRIX

IN_THE_BROWSER = "It begins, proves or ends a person's session: a program has none."
WAYS_IN = "How somebody gets in is theirs to change, in person: a program that could do it is them."
PREFILLED = "It fills in a form; a program files what it likes."

# By the portal's route: the call that does the same.
SAME = {
    "profile": "PATCH me/",
    "token-new": "POST tokens/",
    "token-revoke": "POST tokens/{}/revoke/",
    "session-end": "POST me/sessions/{}/end/",
    "sessions-end": "POST me/sessions/end-others/",
    "person-new": "POST people/",
    "service-new": "POST people/",
    "person-deactivate": "POST people/{}/deactivate/",
    "person-reactivate": "POST people/{}/reactivate/",
    "person-invite": "POST people/{}/invite/",
    "person-sign-out": "POST people/{}/sign-out/",
    "person-roles": "POST people/{}/roles/",
    "person-reset": "POST people/{}/reset-factors/",
    "service-extend": "POST people/{}/extend/",
    "group-new": "POST groups/",
    "group-join": "POST groups/{}/members/",
    "group-leave": "POST groups/{}/members/remove/",
    "group-owner": "POST groups/{}/owners/",
    "notification-settings": "PUT notification-settings/",
    "notifications-read": "POST notifications/read/",
    "notification-read": "POST notifications/{}/read/",
    "price-set": "POST endpoints/{}/prices/",
    "upstream-key-rotate": "POST endpoints/{}/rotate/",
    "upstream-key-store": "POST endpoints/{}/keys/",
    "upstream-key-leak": "POST endpoints/{}/report-leak/",
    "rotation-confirm": "POST rotations/{}/confirm/",
    "absences": "POST absences/",
    "absence-drop": "DELETE absences/{}/",
    "request-together": "POST requests/together/",
    "together-preview": "POST requests/preview/",
    "request-new": "POST requests/",
    "request-preview": "POST requests/preview/",
    "request-review": "POST requests/{}/reviews/",
    "request-cancel": "POST requests/{}/cancel/",
    "request-comment": "POST requests/{}/comments/",
    "request-hand-over": "POST requests/{}/hand-over/",
    "approvals-decide": "POST reviews/",
    "change-decide": "POST changes/{}/approve/",
    "change-withdraw": "POST changes/{}/withdraw/",
    "policy-new": "PUT policies/{}/",
    "policy-new-check": "POST policies/check/",
    "policy-edit": "PUT policies/{}/",
    "policy-check": "POST policies/check/",
    "policy-retire": "DELETE policies/{}/",
    "grant-check-out": "POST grants/{}/credentials/",
    "grant-refresh": "POST grants/{}/credentials/refresh/",
    "grant-open": "POST grants/{}/credentials/",
    "grant-end": "POST grants/{}/end/",
    "grant-extend": "POST requests/",
    "grant-extend-preview": "POST requests/preview/",
    "grant-raise": "POST requests/",
    "grant-raise-preview": "POST requests/preview/",
    "live-end": "POST grants/{}/end/",
    "stop-new": "POST stops/",
    "stop-lift": "POST stops/{}/lift/",
    "workload-issuer-new": "POST issuers/",
    "workload-issuer-change": "PATCH issuers/{}/",
    "workload-issuer-retire": "POST issuers/{}/retire/",
    "workload-rule-new": "POST workload-rules/",
    "workload-rule": "PATCH workload-rules/{}/",
    "workload-rule-retire": "POST workload-rules/{}/retire/",
    "agents": "POST agents/",
    "agent-take-back": "POST agents/{}/take-back/",
    "webhook-new": "POST webhooks/",
    "webhook-edit": "PATCH webhooks/{}/",
    "webhook-rotate": "POST webhooks/{}/rotate-secret/",
    "webhook-test": "POST webhooks/{}/test/",
    "webhook-replay": "POST webhooks/{}/replay/",
    "webhook-enable": "POST webhooks/{}/enable/",
    "webhook-disable": "POST webhooks/{}/disable/",
    "webhook-delete": "DELETE webhooks/{}/",
    "webhook-message-replay": "POST webhook-messages/{}/replay/",
    "operations-try": "POST operations/try/",
}
# By the portal's route: why there is no such call.
NONE = {
    "sign-in": IN_THE_BROWSER,
    "sign-out": IN_THE_BROWSER,
    "sign-in-factor": IN_THE_BROWSER,
    "sign-in-passkey": IN_THE_BROWSER,
    "sso-backchannel-logout": "It's the provider that calls this, by its own protocol.",
    "step-up": IN_THE_BROWSER,
    "step-up-passkey": IN_THE_BROWSER,
    "welcome-password": IN_THE_BROWSER,
    "password": WAYS_IN,
    "factor": WAYS_IN,
    "factor-set-up": WAYS_IN,
    "factor-remove": WAYS_IN,
    "factor-codes": WAYS_IN,
    "passkey-add": WAYS_IN,
    "passkey-begin": WAYS_IN,
    "passkey-rename": WAYS_IN,
    "passkey-remove": WAYS_IN,
    "request-again": PREFILLED,
}


def bare(template: str) -> str:
    return re.sub(r"{\w+}", "{}", template)


def takes_post(pattern: URLPattern) -> bool:
    """Whether the view lets POST by: what it lets by is checked before anything else."""
    given = dict.fromkeys(pattern.pattern.converters, "x")
    try:
        answer = pattern.callback(RequestFactory().options("/"), **given)
    except AttributeError:  # it began to work: it takes whatever comes
        return True
    return "POST" in answer.get("Allow", "POST")


def test_each_change_in_the_portal_has_its_call_or_a_reason_why_not() -> None:
    changing = {str(each.name) for each in urls_portal.urlpatterns if takes_post(each)}
    assert changing == SAME.keys() | NONE.keys()
    assert set(SAME.values()) <= {f"{method} {bare(template)}" for method, template in MATRIX}


def documented() -> list[tuple[list[str], set[str]]]:
    """The rows of the table in docs/api.md: addresses, and the methods that stand beside them."""
    text = (settings.BASE_DIR / "docs" / "api.md").read_text()
    table = text.partition("## What there is")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`/api.+?) \| ([A-Z, ]+) \|", table, re.MULTILINE)
    return [(addresses(said), set(methods.split(", "))) for said, methods in rows]


def addresses(said: str) -> list[str]:
    """`…/{id}/` is below the first address of its row; `…/reject/` stands for its last part."""
    first, *more = re.findall("`(.+?)`", said)
    parent = first.rstrip("/").rpartition("/")[0] + "/"
    return [
        bare(each.replace("…/", first if each.startswith("…/{") else parent))
        for each in (first, *more)
    ]


def test_the_page_on_the_api_lists_every_address_with_its_methods() -> None:
    there: dict[str, set[str]] = {}
    for call in (call for resource in resources() for call in resource.calls):
        there.setdefault(bare(call.path), set()).add(call.method)
    rows = documented()
    assert sorted(each for found, _ in rows for each in found) == sorted(there)
    for found, methods in rows:
        assert set().union(*(there[each] for each in found)) == methods, found
