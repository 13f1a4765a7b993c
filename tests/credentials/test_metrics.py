"""Figures for Prometheus, and the alerts that are built on them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.test import Client, override_settings
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from audit import clock
from audit.events import Event
from audit.record import record
from credentials.actions import check_out
from credentials.metrics import Credentials, registry
from credentials.models import Reconciliation
from gateway import metrics as gateway_metrics
from tests.credentials.owing import gone, owed, papers
from tests.house.test_docs import heading_ids
from tests.world import World

pytestmark = pytest.mark.django_db
TOKEN = "t" * 40
ALERTS = Path(settings.BASE_DIR) / "examples" / "alerts.yaml"


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with papers(monkeypatch), override_settings(KEYTURN_METRICS_TOKEN=TOKEN):
        for collector in list(registry._collector_to_names):
            if isinstance(collector, Credentials):
                collector._totals = []
        yield


def scrape(**headers: str) -> Any:
    return Client().get("/metrics", headers=headers)


def figures() -> dict[tuple[str, ...], float]:
    answer = scrape(Authorization=f"Bearer {TOKEN}")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize(
    "sent", ["", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer ", TOKEN, f"Bearer {TOKEN[1:]}"]
)
def test_without_the_token_there_is_no_such_page(sent: str, world: World) -> None:
    administrator = Client()
    administrator.force_login(world.person(is_administrator=True))
    for client in (Client(), administrator):
        answer = client.get("/metrics", headers={"Authorization": sent} if sent else {})
        nothing = client.get("/metricsx")
        assert answer.status_code == nothing.status_code == 404
        assert b"keyturn_" not in answer.content
        assert len(answer.content) == len(nothing.content)


def test_where_no_token_is_set_there_is_no_such_page() -> None:
    with override_settings(KEYTURN_METRICS_TOKEN=""):
        assert scrape(Authorization="Bearer ").status_code == 404
        assert scrape().status_code == 404


def test_figures_are_those_of_the_database(world: World) -> None:
    assert figures()["keyturn_revocation_oldest_due_seconds",] == 0
    grant = world.grant()
    check_out(by=grant.holder, grant_id=grant.pk)
    stuck = owed(grant, count=3, seconds=300, target="orders-db")
    owed(grant, seconds=10, target="orders-db")
    owed(grant, how="by_expiry", expires_in=100)
    gone(stuck[0])
    record(Event.ORPHAN_FOUND, by=None, name="kt-x", where="Vault")
    Reconciliation.objects.create(
        at=clock.now(), irrevocable=[{"lease": "x", "error": ""}], failures={"engine": "down"}
    )
    registry_now = Credentials()
    told = {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry_now.collect()
        for sample in family.samples
    }
    assert 299 < told["keyturn_revocation_oldest_due_seconds",] < 330
    assert told["keyturn_revocations_due", "paper", "orders-db"] == 3
    assert told["keyturn_revocations_stuck", "paper", "orders-db"] == 2
    assert told["keyturn_revocations_waiting", "paper", "Expiry"] == 1
    assert told["keyturn_mints_total", "gateway_token"] == 1
    assert told["keyturn_revokes_total", "paper"] == 1
    assert told["keyturn_orphans_found_total",] >= 1
    assert told["keyturn_irrevocable_leases",] == 1
    assert told["keyturn_rotations_open", "due"] == told["keyturn_rotations_late",] == 0
    assert told["keyturn_reconciliation_failures",] == 1
    assert told["keyturn_reconciliation_age_seconds",] < 30


def known_names() -> set[str]:
    Reconciliation.objects.create(at=clock.now())
    ours = {sample.name for family in Credentials().collect() for sample in family.samples} | set(
        re.findall(r"^# TYPE (\w+)", generate_latest(registry).decode(), re.MULTILINE)
    )
    source = Path(gateway_metrics.__file__).read_text()
    told = set(re.findall(r'"(\w+)", "[A-Z][^"]+", gateway', source)) | set(
        re.findall(r'\(\s*"(\w+)",\s*"[A-Z]', source)
    )
    return ours | {f"keyturn_gateway_{name}" for name in told}


def test_alerts_are_about_metrics_that_there_are(world: World) -> None:
    owed(world.grant(), seconds=300)
    names = known_names()
    rules = [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        used = set(re.findall(r"keyturn_\w+", rule["expr"]))
        assert used, rule["alert"]
        assert used <= names, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in heading_ids(Path(settings.BASE_DIR) / path), rule["alert"]
