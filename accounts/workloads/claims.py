"""What a rule wants of a token's claims, and whether a token's are so."""

import json
import re
from collections.abc import Mapping
from typing import Any

from broker.errors import InvalidInput

MOST_CLAIMS = 20
MOST_VALUES = 50
LONGEST = 500  # characters of a value
# Looked at in every token anyway, and saying nothing of who it is.
CHECKED = frozenset({"iss", "aud", "exp", "nbf", "iat", "jti"})
# Issuers that sign for everybody who has an account there: a rule that doesn't say whose job it is
# lets in anybody's. Names of owners and projects can be taken by others later; ids can't.
EVERYBODYS = {
    "https://token.actions.githubusercontent.com": (
        "repository_id",
        "repository_owner_id",
        "repository",
        "repository_owner",
        "enterprise_id",
        "sub",
    ),
    "https://gitlab.com": ("project_id", "namespace_id", "project_path", "namespace_path", "sub"),
    "https://agent.buildkite.com": (
        "pipeline_id",
        "organization_id",
        "organization_slug",
        "sub",
    ),
    "https://app.terraform.io": (
        "terraform_workspace_id",
        "terraform_project_id",
        "terraform_organization_id",
        "terraform_organization_name",
        "sub",
    ),
    "https://accounts.google.com": ("sub", "email"),
}
# How `sub` begins there where it says whose. Elsewhere its owner chooses what is in it: at GitHub
# it can be a name of an environment, which anybody gives one of theirs as well.
SUBJECTS = {
    "https://token.actions.githubusercontent.com": "repo:",
    "https://gitlab.com": "project_path:",
    "https://agent.buildkite.com": "organization:",
    "https://app.terraform.io": "organization:",
}

Wanted = dict[str, list[str]]


def value_at(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name, or the value at this JSON pointer (RFC 6901) into objects; None
    where there is none."""
    if not name.startswith("/"):
        return claims.get(name)
    found: Any = claims
    for part in name[1:].split("/"):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def texts(value: Any) -> list[str]:
    """What a rule's values are compared with: text as it is, numbers and booleans as JSON has
    them, of a list each element. Objects and null are nothing."""
    if isinstance(value, list):
        return [text for each in value if not isinstance(each, list) for text in texts(each)]
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool | int | float):
        return [json.dumps(value)]
    return []


def matches(pattern: str, text: str) -> bool:
    """Whether the text is the pattern, whose `*` stands for one or more characters, of which none
    is a `/` or a `:`. Case counts."""
    wanted, found = re.split("([/:])", pattern), re.split("([/:])", text)
    return len(wanted) == len(found) and all(map(_part_matches, wanted, found))


def _part_matches(pattern: str, text: str) -> bool:
    before, star, after = pattern.partition("*")
    if not star:
        return pattern == text
    longer = len(text) > len(before) + len(after)
    return longer and text.startswith(before) and text.endswith(after)


def fit(wanted: Mapping[str, list[str]], claims: Mapping[str, Any]) -> bool:
    """Whether every claim that a rule names is as it wants it."""
    return bool(wanted) and all(
        any(
            matches(pattern, text) for pattern in patterns for text in texts(value_at(claims, name))
        )
        for name, patterns in wanted.items()
    )


def read(wanted: Mapping[str, Any], claims: Mapping[str, Any]) -> dict[str, Any]:
    """What was read of these claims: those that the rule names, and whose token it was. Fit to be
    stored and shown."""
    names = [*wanted, "iss", "sub", "jti"]
    return {
        name: found[0] if len(found) == 1 else found[:MOST_VALUES]
        for name in dict.fromkeys(names)
        if (found := [neutral(text) for text in texts(value_at(claims, name))])
    }


def neutral(text: object) -> str:
    """A claim's text as one line that can be stored and read: others write it."""
    shown = "".join(
        each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(text)
    )
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def checked(issuer: str, wanted: Any) -> Wanted:
    """What a rule for this issuer wants, as it is stored: lists of patterns by claim.

    Raises InvalidInput at `claims` for what can't be meant, and for a rule that doesn't say who.
    """
    if not isinstance(wanted, Mapping) or not 1 <= len(wanted) <= MOST_CLAIMS:
        raise _wrong(
            'Must name the claims and what each must be, such as {"repository_id": "123"}; '
            f"at most {MOST_CLAIMS}."
        )
    found = {_name(name): _patterns(name, patterns) for name, patterns in wanted.items()}
    saying = EVERYBODYS.get(issuer, tuple(found))
    begins = {"sub": SUBJECTS.get(issuer, "")}
    if not any(
        all(_firm(each) and each.startswith(begins.get(name, "")) for each in found[name])
        for name in saying
        if name in found
    ):
        names = "one claim" if issuer not in EVERYBODYS else f"one of {', '.join(saying)}"
        raise _wrong(f"Must say who it is: {names}, with no * before the first /, or none at all.")
    return found


def _firm(pattern: str) -> bool:
    """Whether it says whose: it has no `*`, or none in the owner's name, up to the first `/`."""
    return "*" not in pattern or "/" in pattern.partition("*")[0]


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name.strip("/ ") or not _line(name):
        raise _wrong("The name of a claim is text, or a JSON pointer such as /kubernetes.io/pod.")
    if name.lstrip("/") in CHECKED:
        raise _wrong(f"{name} is checked of every token. Name what says who it is.")
    return name


def _patterns(name: str, patterns: Any) -> list[str]:
    found = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_VALUES:
        raise _wrong(f"{name} must be a text or a list of texts, at most {MOST_VALUES}.")
    for each in found:
        if not isinstance(each, str) or not _line(each):
            raise _wrong(
                f"{name}: each value is one line of text, at most {LONGEST} characters; numbers "
                'and true or false are written as text, such as "true".'
            )
        if any(part.count("*") > 1 for part in re.split("[/:]", each)):
            raise _wrong(f"{name}: between two / or : there is one * at most.")
    return list(dict.fromkeys(found))


def _line(text: str) -> bool:
    return 1 <= len(text) <= LONGEST and text.isprintable()


def _wrong(message: str) -> InvalidInput:
    return InvalidInput({"claims": message})
