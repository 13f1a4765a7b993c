import datetime as dt
import io
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from accounts.models import Group, User
from audit.events import Event
from audit.models import AuditEvent
from credentials.models import UpstreamSecret
from endpoints.models import AccessProfile, Endpoint

pytestmark = pytest.mark.django_db
EXAMPLE = settings.BASE_DIR / "examples" / "inventory.yaml"


@pytest.fixture
def apply(tmp_path: Path):
    """Applies this YAML; what the command printed."""

    def run(text: str) -> str:
        file = tmp_path / "inventory.yaml"
        file.write_text(text)
        out = io.StringIO()
        call_command("inventory", "apply", str(file), stdout=out)
        return out.getvalue()

    return run


def test_the_example_is_applied_once(apply) -> None:
    assert "created endpoint research-models" in apply(EXAMPLE.read_text())
    assert apply(EXAMPLE.read_text()) == "0 changes.\n"
    assert Endpoint.objects.filter(slug__in=["research-models", "contract-review"]).count() == 2
    ana = User.objects.get(email="ana@example.com")
    assert not ana.has_usable_password()
    assert AccessProfile.objects.open_to(ana).count() == 5


def test_a_change_is_made_and_recorded(apply) -> None:
    apply(EXAMPLE.read_text())
    text = EXAMPLE.read_text().replace("max_duration: PT4H", "max_duration: PT2H")
    assert "changed max_duration of access profile support-assistant/debug" in apply(text)
    event = AuditEvent.objects.filter(event=Event.PROFILE_CHANGED).first()
    assert event is not None
    assert event.data["changed"] == {"max_duration": ["4:00:00", "2:00:00"]}


def test_managers_and_rotas_are_kept(apply) -> None:
    text = EXAMPLE.read_text()
    apply(text)
    ana = User.objects.get(email="ana@example.com")
    assert ana.manager == User.objects.get(email="elif@example.com")
    assert Group.objects.get(slug="on-call").is_rota
    assert not Group.objects.get(slug="engineers").is_rota
    changed = text.replace("manager: elif", "manager: dana").replace("on_call: true", "")
    said = apply(changed)
    assert "changed on_call of group on-call" in said
    assert "changed manager of ana@example.com" in said
    event = AuditEvent.objects.filter(event=Event.MANAGER_SET, subject_id=ana.pk).first()
    assert event is not None
    assert event.data == {"manager": "dana@example.com"}
    # A file that doesn't speak of a manager leaves them as they are; null takes them away.
    silent = changed.replace("    manager: dana@example.com\n", "")
    assert apply(silent) == "0 changes.\n"
    apply(changed.replace("manager: dana@example.com", "manager: null"))
    ana.refresh_from_db()
    assert ana.manager is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("groups:", "grupos:", "grupos: Can't be written here"),
        ("risk: critical", "risk: huge", 'endpoints.0.risk: "huge" is not a valid choice'),
        ("max_duration: PT4H", "max_duration: P40D", "endpoints.0.profiles.0.max_duration:"),
        ("requesters: engineers", "requesters: nobody", "There is no group 'nobody'"),
        ("owner: dana@example.com", "owner: d@example.com", "owner: There is no such person"),
        ("http://127.0.0.1:8090", "ftp://x", "upstream_url: Give an http or https URL"),
        ("time_zone: Europe/Madrid", "time_zone: Madrid", "time_zone: 'Madrid' is no time zone"),
        ("manager: elif@", "manager: e@", "people.0.manager: There is no such person"),
        ("manager: elif@", "manager: ana@", "people.0.manager: Must be another person"),
        ("on_call: true", "oncall: true", "groups.on-call.oncall: Can't be written here"),
        ("on_call: true", "on_call: perhaps", "groups.on-call.on_call: Must be a valid boolean"),
        ("slug: debug", "slug: [", "line "),
        ("slug: support-assistant", "slug: Support_assistant", "lower-case letters"),
    ],
)
def test_what_it_does_not_understand_is_named_and_nothing_is_changed(
    old: str, new: str, says: str, apply
) -> None:
    text = EXAMPLE.read_text()
    assert old in text
    before = Group.objects.count()
    with pytest.raises(CommandError) as refused:
        apply(text.replace(old, new))
    assert says in str(refused.value)
    assert Group.objects.count() == before


def test_a_scope_is_whole(apply) -> None:
    apply(EXAMPLE.read_text())
    debug = AccessProfile.objects.get(slug="debug")
    assert debug.ceiling.tools == {"find_ticket", "read_order", "refund_order"}
    assert (debug.ceiling.token_budget, debug.default_scope.token_budget) == (2_000_000, 200_000)
    assert debug.aliases == {"fast": "demo-small"}
    console = AccessProfile.objects.get(slug="operate")
    assert console.endpoint.dialects == ["http"]
    assert console.default_scope.operations == {"GET /", "HEAD /"}
    text = EXAMPLE.read_text().replace("token_budget: 2000000", "token_budget: 1000000")
    assert apply(text) == "changed scope of access profile support-assistant/debug\n1 changes.\n"


@pytest.mark.parametrize(
    ("was", "becomes", "where", "says"),
    [
        ("token_budget: 2000000", "token_budget: 0", "scope.token_budget", "greater than or equal"),
        ("concurrency: 8", "concurency: 8", "scope.concurency", "Can't be written"),
        ('["GET /", "HEAD /"]', "[get]", "defaults.operations", "path prefix"),
        ('["GET /", "HEAD /", "POST /models/"]', "[]", "scope", "at least one model"),
        ("fast: demo-small", "fast: gpt-9", "aliases", "gpt-9"),
        ("fast: demo-small", "demo-large: demo-small", "aliases", "demo-large"),
    ],
)
def test_a_wrong_scope_is_named(was: str, becomes: str, where: str, says: str, apply) -> None:
    text = EXAMPLE.read_text()
    assert was in text
    with pytest.raises(CommandError, match=says) as refused:
        apply(text.replace(was, becomes, 1))
    assert where in str(refused.value)
    assert not Endpoint.objects.filter(slug="model-console").exists()


def test_upstreams_and_the_header_of_their_key(apply) -> None:
    text = EXAMPLE.read_text().replace(
        "dialects: [http]",
        "dialects: [http]\n    further_upstreams: [http://127.0.0.1:8091]\n"
        "    key_header: X-Console-Key\n    max_stale: 0",
    )
    apply(text)
    console = Endpoint.objects.get(slug="model-console")
    assert console.further_upstreams == ["http://127.0.0.1:8091"]
    assert console.key_header == "X-Console-Key"
    assert console.max_stale == 0
    wrong = text.replace("http://127.0.0.1:8091", "ftp://127.0.0.1")
    with pytest.raises(CommandError, match="http or https"):
        apply(wrong)


def test_what_rotates_a_key_is_in_the_file(apply) -> None:
    text = EXAMPLE.read_text()
    apply(text)
    at = text.index("  - slug: research-models\n") + len("  - slug: research-models\n")
    rotator = "    rotator: {rotator: manual, settings: {days: 7}, max_age: P90D}\n"
    rotated = text[:at] + rotator + text[at:]
    assert "changed max_age, settings of rotator of endpoint research-models" in apply(rotated)
    assert apply(rotated) == "0 changes.\n"
    secret = UpstreamSecret.objects.get(endpoint__slug="research-models")
    assert (secret.settings["days"], secret.max_age) == (7, dt.timedelta(days=90))
    with pytest.raises(CommandError, match=r"research-models\.rotator\.settings\.days"):
        apply(rotated.replace("days: 7", "days: 0"))
