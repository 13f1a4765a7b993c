import base64
import datetime as dt
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from django.test import Client, override_settings

from accounts import published
from accounts.actions import deactivate_user, token_owner
from accounts.models import ApiToken, SignInTry, UsedAssertion, WorkloadRule
from accounts.workloads import actions
from accounts.workloads.exchange import Refused, exchange, forget_used
from audit import clock
from audit.events import Event
from audit.models import AuditEvent
from broker.errors import Unavailable
from tests.fakes.issuers import AUDIENCE, Issuer
from tests.invariants.races import at_once
from tests.workloads.conftest import exchanged, rule_of, service_account, trusted
from tests.world import World, unique


@pytest.fixture
def rule(db: None, github: Issuer, world: World) -> WorkloadRule:
    return rule_of(trusted(github), world)


def refused(answer: Any, error: str) -> str:
    """That it is refused so, and nothing was made; what it says."""
    assert answer.status_code == 400, answer.content
    body = answer.json()
    assert body["error"] == error
    assert not ApiToken.objects.filter(kind="wl").exists()
    assert not UsedAssertion.objects.exists()
    assert not answer.cookies
    text: str = body["error_description"]
    return text


def test_a_jwt_is_exchanged_for_a_short_token_that_opens_the_api(github, rule, world):
    answer = exchanged(github.github())
    assert answer.status_code == 200, answer.content
    body = answer.json()
    assert answer["Cache-Control"].count("no-store") == 1
    assert not answer.cookies
    text = body.pop("access_token")
    assert text.startswith("kt_wl_")
    assert 700 <= body.pop("expires_in") <= 900
    assert body == {
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "scope": "read request",
    }
    own = Client().get("/api/v1/requests/", headers={"Authorization": f"Bearer {text}"})
    assert own.status_code == 200
    row = AuditEvent.objects.get(event=Event.TOKEN_EXCHANGED)
    assert row.actor_id == rule.service_account_id
    assert row.via == "api"
    said = {"repository_id": "74", "iss": github.url, "jti": row.data["claims"]["jti"]}
    assert row.data["claims"] == said | {"sub": "repo:octo-org/octo-repo:environment:prod"}


def by_the_public_key(issuer: Issuer) -> str:
    """HS256, with what everybody can read as its secret."""
    public = issuer.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, body, _ = issuer.github().split(".")
    head = (
        base64.urlsafe_b64encode(
            json.dumps({"alg": "HS256", "typ": "JWT", "kid": issuer.kid}).encode()
        )
        .rstrip(b"=")
        .decode()
    )
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(f"{head}.{body}".encode(), public)
    return f"{head}.{body}." + base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def unsigned(issuer: Issuer) -> str:
    said = jwt.decode(issuer.github(), options={"verify_signature": False})
    return jwt.encode(said, "", "none", headers={"kid": issuer.kid})


def another_key(issuer: Issuer, **header: Any) -> str:
    """By somebody else's key, under the name of this issuer's."""
    forger = Issuer("RS256")
    forger.server.server_close()
    said = jwt.decode(issuer.github(), options={"verify_signature": False})
    return jwt.encode(said, forger.key, "RS256", headers={"kid": issuer.kid} | header)


def its_own_key(issuer: Issuer) -> str:
    """The key comes along in the header, and where to find it."""
    forger = Issuer("RS256")
    forger.server.server_close()
    return another_key(issuer, jwk=forger.jwk(), jku="https://evil.example/keys")


def changed(issuer: Issuer) -> str:
    head, _, signature = issuer.github().split(".")
    body = issuer.github(repository_id="74", sub="repo:evil/evil").split(".")[1]
    return f"{head}.{body}.{signature}"


@pytest.mark.parametrize("forged", [by_the_public_key, unsigned, another_key, its_own_key, changed])
def test_what_its_issuer_did_not_sign_is_refused(
    forged: Callable[[Issuer], str], github, rule, world
):
    refused(exchanged(forged(github)), "invalid_grant")
    row = AuditEvent.objects.get(event=Event.EXCHANGE_REFUSED)
    assert row.subject_id == rule.issuer_id
    # What nobody signed is said in nobody's name.
    assert row.data["sub"] == ""


@pytest.mark.parametrize("depth", [0, 800])
def test_whatever_its_header_says_it_is_signed_by_is_refused_in_few_words(
    depth: int, github, rule, caplog
):
    """Text of a stranger's, as long as they like, or lists in lists."""
    said = f'{"[" * depth}"{"x" * 9000}"{"]" * depth}'
    head = base64.urlsafe_b64encode(f'{{"alg":{said}}}'.encode()).rstrip(b"=").decode()
    answer = exchanged(f"{head}.{github.github().partition('.')[2]}")
    assert answer.status_code == 400
    assert max(len(each.getMessage()) for each in caplog.records) < 300


NOW = time.time
WRONG: list[dict[str, Any]] = [
    {"aud": "https://another.example"},
    {"aud": [AUDIENCE, "https://another.example"]},
    {"aud": AUDIENCE + "/"},
    {"aud": None},
    {"exp": int(NOW()) - 60},
    {"exp": None},
    {"exp": "9999999999"},
    {"exp": True},
    {"nbf": int(NOW()) + 3600},
    {"nbf": None},
    {"iat": None},
    {"iat": int(NOW()) - 3700, "exp": int(NOW()) + 3600},
    {"iat": int(NOW()) + 3600, "exp": int(NOW()) + 7200},
    {"jti": 7},
    {"jti": ""},
    {"jti": "x" * 501},
    {"repository_id": "75"},
    {"repository_id": ["75", "76"]},
    {"repository_id": {"74": "74"}},
    {"repository_id": None},
    {"repository_id": 74.0},
    {"repository_id": " 74"},
    {"repository_id": [["74"]]},
    {"iss": "https://another.example"},
    {"iss": "http://127.0.0.1:1\x00"},
    {"iss": ""},
]


@pytest.mark.parametrize(
    "claims", WRONG, ids=[f"{n}-{'-'.join(each)}" for n, each in enumerate(WRONG)]
)
def test_what_is_not_for_here_or_not_of_now_or_fits_no_rule_is_refused(
    claims: dict[str, Any], github, rule, world
):
    refused(exchanged(github.github(**claims)), "invalid_grant")


def test_an_issuer_without_a_rule_is_named_in_the_refusal(github, world, db):
    """So that whoever set it up sees why its jobs don't come in."""
    issuer = trusted(github)
    refused(exchanged(github.github()), "invalid_grant")
    assert AuditEvent.objects.get(event=Event.EXCHANGE_REFUSED).subject_id == issuer.pk


def test_numbers_lists_and_booleans_are_compared_as_json_has_them(github, rule, world):
    for claims in ({"repository_id": 74}, {"repository_id": ["1", "74"]}):
        assert exchanged(github.github(**claims)).status_code == 200


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "." * 3, "[" * 9000, "é.é.é", "x" * 20_000], ids=lambda t: t[:5]
)
def test_what_is_no_jwt_is_refused(token: str, rule, world):
    refused(exchanged(token), "invalid_request")


def test_a_payload_that_is_nested_deeply_is_refused(github, rule):
    deep = base64.urlsafe_b64encode(b"[" * 11_000).rstrip(b"=").decode()
    head = github.github().split(".")[0]
    refused(exchanged(f"{head}.{deep}.x"), "invalid_request")
    body = github.github().split(".")[1]
    refused(exchanged(f"{deep}.{body}.x"), "invalid_request")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "unsupported_grant_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"resource": "https://another.example"}, "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": "https://another.example"}, "invalid_target"),
        ({"scope": "review"}, "invalid_scope"),
        ({"scope": "check_out"}, "invalid_scope"),
        ({"scope": "everything"}, "invalid_scope"),
        ({"service_account": "another@example.com"}, "invalid_grant"),
    ],
    ids=str,
)
def test_what_is_asked_otherwise_is_refused_in_the_form_of_oauth(said, error, github, rule):
    refused(exchanged(github.github(), **said), error)


def test_it_takes_a_form_in_the_body_alone(github, rule, world):
    client, token = Client(), github.github()
    answer = client.post("/oauth/token", {"subject_token": token}, content_type="application/json")
    refused(answer, "invalid_request")
    address = f"/oauth/token?subject_token={token}"
    form = "application/x-www-form-urlencoded"
    refused(client.generic("POST", address, "", content_type=form), "invalid_request")
    twice = client.generic("POST", "/oauth/token", "scope=read&scope=request", content_type=form)
    assert "more than once" in refused(twice, "invalid_request")
    assert client.get("/oauth/token").status_code == 405
    for body, more in (("a=1&" * 3000, ""), ("x" * 3_000_000, ""), ("a=1", "; charset=utf-16")):
        unread = client.generic("POST", "/oauth/token", body, content_type=form + more)
        assert "can't be read" in refused(unread, "invalid_request")


def test_a_token_counts_once_even_if_its_rule_fits_no_more(github, rule, world):
    token = github.github()
    assert exchanged(token).status_code == 200
    again = exchanged(token)
    assert again.status_code == 400
    assert "exchanged before" in again.json()["error_description"]
    assert ApiToken.objects.filter(kind="wl").count() == 1


def test_without_jti_what_was_signed_counts_once_however_its_signature_is_spelt(
    github, rule, world
):
    token = github.github(jti=None)
    assert exchanged(token).status_code == 200
    # The last character of a signature has bits that mean nothing.
    other = next(
        spelt
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        if (spelt := token[:-1] + last) != token
        and base64.urlsafe_b64decode(spelt.rpartition(".")[2] + "==")
        == base64.urlsafe_b64decode(token.rpartition(".")[2] + "==")
    )
    assert exchanged(other).status_code == 400
    assert exchanged(github.github(jti=None, run_id="4712")).status_code == 200


def test_twenty_at_once_with_one_jwt_get_one_token(committed, github, world):
    rule = rule_of(trusted(github), world)
    token = github.github()
    answers = at_once([partial(exchange, subject_token=token)] * 20)
    assert sum(isinstance(each, tuple) for each in answers) == 1
    assert sum(isinstance(each, Refused) for each in answers) == 19
    assert ApiToken.objects.filter(rule=rule).count() == 1
    # Those that lost, of one address.
    SignInTry.objects.all().delete()


def test_where_rules_fit_several_accounts_the_caller_says_which(github, rule, world):
    other = rule_of(rule.issuer, world, claims={"repository_owner_id": "65"}, verbs=["read"])
    token = github.github()
    said = refused(exchanged(token), "invalid_request")
    assert rule.service_account.email in said
    assert other.service_account.email in said
    answer = exchanged(token, service_account=other.service_account.email)
    assert answer.json()["scope"] == "read"


def test_of_several_rules_the_narrowest_counts_that_gives_what_is_asked(github, rule, world):
    same = {"service_account": rule.service_account, "claims": {"repository_owner_id": "65"}}
    rule_of(rule.issuer, world, **same, verbs=["read"])
    rule_of(rule.issuer, world, **same, verbs=["read", "request", "end"])
    assert exchanged(github.github()).json()["scope"] == "read"
    assert exchanged(github.github(), scope="read request").json()["scope"] == "read request"
    assert exchanged(github.github(), scope="end").json()["scope"] == "end"


def test_what_was_given_ends_with_its_rule_issuer_and_account(github, world, db):
    def given(**changes: Any) -> tuple[WorkloadRule, str]:
        made = rule_of(trusted(github), world, **changes)
        return made, exchanged(github.github()).json()["access_token"]

    rule, text = given()
    assert token_owner(text) is not None
    # Whatever ends it, and though the row itself were forgotten.
    WorkloadRule.objects.filter(pk=rule.pk).update(retired_at=clock.now())
    assert token_owner(text) is None
    WorkloadRule.objects.filter(pk=rule.pk).update(retired_at=None)
    assert token_owner(text) is not None
    actions.change_rule(by=None, rule=rule, name="Weekly")
    assert token_owner(text) is not None
    actions.change_rule(by=None, rule=rule, verbs=["read"])
    assert token_owner(text) is None
    text = exchanged(github.github()).json()["access_token"]
    actions.retire_rule(by=None, rule=rule)
    assert token_owner(text) is None
    assert exchanged(github.github()).status_code == 400
    other = rule_of(rule.issuer, world)
    text = exchanged(github.github()).json()["access_token"]
    deactivate_user(by=None, user=other.service_account)
    assert token_owner(text) is None
    assert "has ended" in exchanged(github.github()).json()["error_description"]
    actions.retire_rule(by=None, rule=other)
    rule_of(rule.issuer, world)
    text = exchanged(github.github()).json()["access_token"]
    actions.retire_issuer(by=None, issuer=rule.issuer)
    assert token_owner(text) is None
    assert exchanged(github.github()).status_code == 400


def test_a_service_account_whose_time_is_over_gets_none_and_none_outlives_it(github, world, db):
    rule = rule_of(trusted(github), world)
    service = rule.service_account
    service.ends_at = clock.now() + dt.timedelta(minutes=2)
    service.save()
    assert exchanged(github.github()).json()["expires_in"] <= 120
    service.ends_at = clock.now() - dt.timedelta(seconds=1)
    service.save()
    assert exchanged(github.github()).status_code == 400


KEYS, DISCOVERY = "/keys", "/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (KEYS, 500),
        (KEYS, 302),
        (DISCOVERY, 302),
        (KEYS, b"{"),
        (KEYS, b"[" * 100_000),
        (KEYS, b"[]"),
        (KEYS, b" " * 1_100_000),
        (DISCOVERY, {"issuer": "https://another.example", "jwks_uri": "https://another.example"}),
        (DISCOVERY, {}),
    ],
    ids=lambda each: str(each)[:20],
)
def test_while_its_keys_cannot_be_read_nothing_is_done(path, answer, github, rule):
    before, token = AuditEvent.objects.count(), github.github()
    with github.serving(path, answer):
        found = exchanged(token)
        assert found.status_code == 503, found.content
        assert found.json()["error"] == "temporarily_unavailable"
        assert found["Retry-After"]
        assert github.url not in found.content.decode()
        # Whoever comes next doesn't wait for it as well.
        calls = len(github.calls)
        assert exchanged(token).status_code == 503
        assert len(github.calls) == calls
    assert AuditEvent.objects.count() == before
    assert not UsedAssertion.objects.exists()
    published._kept.clear()
    assert exchanged(token).status_code == 200


def late(_call: Any) -> int:
    time.sleep(1)
    return 500


def test_an_issuer_that_hangs_is_given_up(github, rule, monkeypatch):
    monkeypatch.setattr(published, "TIMEOUT", 0.3)
    with github.serving(KEYS, late), pytest.raises(Unavailable):
        exchange(subject_token=github.github())


def test_an_issuer_where_nothing_may_be_called_is_not_called(github, rule):
    with override_settings(KEYTURN_OUTGOING_NETWORKS=["public", "private"]):
        assert exchanged(github.github()).status_code == 503
    assert github.calls == []


def test_a_key_that_is_new_is_read_without_a_restart_and_not_for_each_guess(
    github, rule, monkeypatch
):
    assert exchanged(github.github()).status_code == 200
    github.rotate()
    for _ in range(3):
        assert exchanged(github.github()).status_code == 400
    assert github.calls.count(KEYS) == 1
    monkeypatch.setattr(published, "KEYS_AGAIN", 0.0)
    assert exchanged(github.github()).status_code == 200


def test_whoever_names_a_key_that_there_is_not_takes_no_other_s_keys_away(
    github, rule, monkeypatch
):
    assert exchanged(github.github()).status_code == 200
    monkeypatch.setattr(published, "KEYS_AGAIN", 0.0)
    with github.serving(KEYS, 500):
        assert exchanged(another_key(github, kid="unheard-of")).status_code == 503
        assert exchanged(github.github()).status_code == 200


def test_a_key_whose_private_part_is_published_signs_nothing(github, rule):
    private = jwt.get_algorithm_by_name("RS256").to_jwk(github.key, as_dict=True)
    with github.serving(KEYS, {"keys": [private | {"kid": github.kid}]}):
        refused(exchanged(github.github()), "invalid_grant")


def test_whoever_fails_again_and_again_is_sent_away_and_fills_no_record(github, rule, world):
    for _ in range(35):
        answer = exchanged(github.github(repository_id="1"), came_from="10.0.0.1")
    assert answer.status_code == 429
    assert answer["Retry-After"] == "900"
    assert AuditEvent.objects.filter(event=Event.EXCHANGE_REFUSED).count() == 30
    # Others of the same address work there, too.
    row, _ = exchange(subject_token=github.github())
    assert row.owner == rule.service_account


def test_hostile_claims_are_neutral_wherever_they_are_kept(github, rule, world):
    hostile = "\x00\x1b[31m\r\n=cmd()\u202e" + "x" * 5000
    token = github.github(sub=hostile, repository_id=["74", hostile])
    row, _ = exchange(subject_token=token)
    assert len(row.claims["sub"]) == 500
    kept = json.dumps(row.claims)
    for each in ("\\u0000", "\\u001b", "\\r", "\\u202e"):
        assert each not in kept
    refused_one = github.github(repository_id="1", sub=hostile)
    assert exchanged(refused_one).status_code == 400
    data = AuditEvent.objects.get(event=Event.EXCHANGE_REFUSED).data
    assert data["sub"] == row.claims["sub"]


def test_used_ones_are_forgotten_once_they_are_too_old_anyway(github, rule, world):
    exchange(subject_token=github.github())
    assert forget_used() == 0
    assert UsedAssertion.objects.get().expires_at > clock.now() + dt.timedelta(seconds=300)
    UsedAssertion.objects.update(expires_at=clock.now())
    assert forget_used() == 1
    token, long_ago = ApiToken.objects.filter(kind="wl"), clock.now() - dt.timedelta(days=8)
    token.update(created_at=long_ago, expires_at=long_ago)
    forget_used()
    assert not token.exists()


def test_tokens_of_gitlab_and_kubernetes_are_taken_as_they_are(github, world, db):
    issuer = trusted(github)
    claims: dict[str, dict[str, Any]] = {
        "gitlab": {"project_id": "20", "ref_protected": "true", "ref": ["main", "release-*"]},
        "kubernetes": {
            "/kubernetes.io/namespace": "evaluation",
            "/kubernetes.io/serviceaccount/name": "nightly",
        },
    }
    for shape, wanted in claims.items():
        rule = rule_of(issuer, world, claims=wanted)
        row, _ = exchange(subject_token=getattr(github, shape)())
        assert row.rule == rule
        assert row.claims.keys() == {*wanted, "iss", "sub", "jti"}


def test_clients_find_where_to_exchange_tokens():
    found = Client().get("/.well-known/oauth-authorization-server").json()
    assert found["token_endpoint"].endswith("/oauth/token")
    assert found["grant_types_supported"] == ["urn:ietf:params:oauth:grant-type:token-exchange"]


def test_two_tokens_of_one_name_do_not_meet_across_issuers(github, rule, world):
    """One issuer's `jti` says nothing of another's."""
    jti = unique()
    with Issuer() as other:
        rule_of(trusted(other), world)
        for each in (github, other):
            assert exchanged(each.github(jti=jti)).status_code == 200
    assert service_account(world).is_service
