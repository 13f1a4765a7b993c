"""Workloads' pages in a browser: on a desk and a phone, light and dark."""

from collections.abc import Callable

import pytest

from accounts import changes
from accounts.models import WorkloadRule
from accounts.stepup import Action, Purpose
from accounts.workloads.actions import add_rule, trust_issuer
from tests.browser.conftest import Visitor
from tests.browser.test_webhooks import look
from tests.world import PASSWORD, PROVED, World, unique

GITHUB = "https://token.actions.githubusercontent.com"
AUDIENCE = "https://keyturn.acme.example"


@pytest.mark.slow
def test_workloads_in_every_look(visit: Callable[..., Visitor], world: World) -> None:
    ada = world.person(full_name="Ada Byron", is_administrator=True, password=PASSWORD)
    profile = world.profile(with_key=True)
    robot = world.person(
        profile.requesters, full_name="Nightly evaluation", owner=world.person(full_name="Ana Diaz")
    )
    github = trust_issuer(
        by=None, slug="github", name="GitHub Actions", issuer=GITHUB, audience=AUDIENCE
    )
    trust_issuer(
        by=None,
        slug="cluster",
        name="Evaluation cluster",
        issuer="https://oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF",
        audience=AUDIENCE,
    )
    rule: WorkloadRule = add_rule(
        by=None,
        issuer=github,
        name="Nightly evaluation",
        service_account=robot,
        claims={
            "repository_id": "74",
            "ref": ["refs/heads/main", "refs/heads/release-*"],
            "job_workflow_ref": "octo-org/automation/.github/workflows/oidc.yml@refs/heads/main",
        },
        verbs=["read", "request", "check_out", "end"],
        endpoints=[profile.endpoint_id],
    )
    change = changes.propose(
        by=world.person(full_name="Ben Okafor", is_administrator=True),
        kind="workload_rule",
        about=rule,
        payload={"claims": {"repository_owner_id": "65"}, "endpoints": []},
        reason="All of our repositories evaluate.",
        proofs=PROVED,
    )
    assert change is not None
    paths = {
        "workloads": "/workloads/",
        "workload-issuer": f"/workloads/{github.pk}/",
        "workload-rule": f"/workloads/rules/{rule.pk}/",
        "workload-rule-new": f"/workloads/{github.pk}/rules/new/",
        "workload-issuer-new": "/workloads/new/",
        "workload-change": f"/changes/{change.pk}/",
    }
    purposes = [Purpose(Action.ISSUER, about) for about in ("", str(github.pk), str(rule.pk))]
    for phone, dark in ((False, False), (True, True), (False, True), (True, False)):
        visitor = visit(phone=phone, dark=dark)
        visitor.sign_in(ada)
        visitor.prove(*purposes, back="/workloads/")
        for name, path in paths.items():
            visitor.go(path)
            look(visitor, name)
    # A rule that could be anybody's is refused at its field.
    page = visitor.go(paths["workload-rule-new"])
    page.get_by_label("Name").fill(f"Weekly {unique()}")
    page.get_by_label("Whose token says").fill("ref = refs/heads/main")
    page.get_by_label("Acts as").fill(robot.email)
    page.get_by_label("Read what its owner may see").check()
    page.get_by_role("button", name="Propose it").click()
    assert "Must say who it is" in page.inner_text("main")
    look(visitor, "workload-rule-refused")
