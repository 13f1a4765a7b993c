"""Policies for tests, bound to a profile or an endpoint."""

from typing import Any

from accessrequests.actions import save_policy
from accessrequests.models import Policy
from accessrequests.policy.document import parse
from accounts.models import Group
from endpoints.models import AccessProfile, Endpoint


def step(*groups: Group, name: str = "Review", **fields: Any) -> dict[str, Any]:
    """A step that members of these groups decide; without any, the profile's reviewers."""
    named = {"groups": [group.slug for group in groups]} if groups else {"profile_reviewers": True}
    return {"name": name, "reviewers": named} | fields


def govern(target: AccessProfile | Endpoint, *steps: dict[str, Any], **fields: Any) -> Policy:
    """Save a policy for this profile or endpoint; saving again makes its next version."""
    if isinstance(target, AccessProfile):
        where = {"profiles": [f"{target.endpoint.slug}/{target.slug}"]}
    else:
        where = {"endpoints": [target.slug]}
    document = {"slug": f"of-{target.slug}", "name": "Ours", "applies_to": where} | fields
    policy, _ = save_policy(by=None, document=parse(document | {"steps": list(steps) or [step()]}))
    return policy
