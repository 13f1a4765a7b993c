"""People, groups, endpoints and profiles from one file that an administrator keeps in Git.

Applying a file makes what is missing and changes what differs. It removes nothing: what has left
the file is retired or deactivated by a person, knowingly.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

import yaml
from django.db import transaction
from rest_framework import serializers

from accounts.actions import create_group, create_user, join_group, set_manager, set_rota
from accounts.api import StrictSerializer
from accounts.models import Group, User
from broker.errors import InvalidInput
from broker.problems import flatten
from credentials.actions import set_rotator
from credentials.models import Use
from endpoints.actions import change, create_endpoint, create_profile
from endpoints.api import ScopeSerializer
from endpoints.models import LONGEST, SHORTEST, AccessProfile, Dialect, Endpoint
from endpoints.scope import Scope


class _Person(StrictSerializer):
    email = serializers.EmailField()
    name = serializers.CharField(max_length=150)
    time_zone = serializers.CharField(default="UTC")
    auditor = serializers.BooleanField(default=False)
    administrator = serializers.BooleanField(default=False)
    groups = serializers.ListField(child=serializers.SlugField(), default=list)
    manager = serializers.EmailField(required=False, allow_null=True)


class _Group(StrictSerializer):
    name = serializers.CharField(max_length=100)
    on_call = serializers.BooleanField(default=False)

    def to_internal_value(self, data: Any) -> Any:
        """A name alone will do."""
        return super().to_internal_value({"name": data} if isinstance(data, str) else data)


class _Profile(StrictSerializer):
    slug = serializers.SlugField()
    name = serializers.CharField(max_length=100)
    description = serializers.CharField(max_length=300, default="")
    # `models` and `default_models` are short for those of `scope` and `defaults`.
    models = serializers.ListField(
        child=serializers.CharField(max_length=200), min_length=1, required=False
    )
    default_models = serializers.ListField(
        child=serializers.CharField(max_length=200), required=False
    )
    scope = ScopeSerializer(required=False)
    defaults = ScopeSerializer(required=False)
    aliases = serializers.DictField(child=serializers.CharField(max_length=200), default=dict)
    credential_kind = serializers.CharField(max_length=20, default="gateway_token")
    kind_settings = serializers.DictField(default=dict)
    default_duration = serializers.DurationField(
        default=dt.timedelta(hours=1), min_value=SHORTEST, max_value=LONGEST
    )
    max_duration = serializers.DurationField(
        default=dt.timedelta(hours=8), min_value=SHORTEST, max_value=LONGEST
    )
    requesters = serializers.SlugField()
    reviewers = serializers.SlugField()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """What is there, with `scope` and `defaults` whole."""
        for short, whole in (("models", "scope"), ("default_models", "defaults")):
            parts = dict(attrs.pop(whole, {}))
            if short in attrs and "models" in parts:
                raise serializers.ValidationError({short: f"Name them here or in {whole}."})
            if models := attrs.pop(short, []):
                parts["models"] = models
            attrs[whole] = {
                key: sorted(set(value)) if isinstance(value, list) else value
                for key, value in parts.items()
            }
        try:
            attrs["scope"] = Scope.parse(attrs["scope"]).as_json()
        except InvalidInput as error:
            raise serializers.ValidationError(dict(error.errors)) from error
        return attrs


class _Rotator(StrictSerializer):
    rotator = serializers.CharField(max_length=20)
    settings = serializers.DictField(default=dict)
    max_age = serializers.DurationField(default=None, allow_null=True)
    probe = serializers.CharField(max_length=200, default="", allow_blank=True)


class _Endpoint(StrictSerializer):
    slug = serializers.SlugField()
    name = serializers.CharField(max_length=100)
    description = serializers.CharField(max_length=300, default="")
    kind = serializers.ChoiceField(choices=Endpoint.Kind.choices, default="inference")
    environment = serializers.ChoiceField(choices=Endpoint.Environment.choices)
    risk = serializers.ChoiceField(choices=Endpoint.Risk.choices)
    connected_systems = serializers.ListField(
        child=serializers.CharField(max_length=100), default=list
    )
    dialects = serializers.ListField(
        child=serializers.ChoiceField(choices=Dialect.choices), min_length=1
    )
    upstream_url = serializers.CharField(max_length=300)
    further_upstreams = serializers.ListField(
        child=serializers.CharField(max_length=300), default=list
    )
    key_header = serializers.CharField(max_length=60, default="", allow_blank=True)
    max_stale = serializers.IntegerField(min_value=0, max_value=300, default=None, allow_null=True)
    owner = serializers.EmailField()
    # Of the key that gateways use, and of the one that grants hand out.
    rotator = _Rotator(required=False)
    handed_out_rotator = _Rotator(required=False)
    profiles = _Profile(many=True, default=list)


class _Inventory(StrictSerializer):
    groups = serializers.DictField(child=_Group(), default=dict)
    people = _Person(many=True, default=list)
    endpoints = _Endpoint(many=True, default=list)


@dataclass
class Applied:
    """What applying changed, a line each."""

    lines: list[str] = field(default_factory=list)

    def note(self, verb: str, what: object) -> None:
        """Remember one change."""
        self.lines.append(f"{verb} {what}")


def read(text: str) -> dict[str, Any]:
    """The inventory in this YAML. Raises InvalidInput, naming line or key."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        raise InvalidInput({where: f"No YAML: {getattr(error, 'problem', error)}."}) from error
    inventory = _Inventory(data=data)
    if not inventory.is_valid():
        raise InvalidInput(flatten(inventory.errors))
    checked: dict[str, Any] = inventory.validated_data
    return checked


@transaction.atomic
def apply(inventory: dict[str, Any], *, by: User | None) -> Applied:
    """Make the database hold what `read` gave; all of it or nothing. Raises InvalidInput."""
    applied = Applied()
    for slug, entry in inventory["groups"].items():
        group = Group.objects.filter(slug=slug).first()
        rota = entry["on_call"]
        if group is None:
            group = create_group(by=by, slug=slug, name=entry["name"], is_rota=rota)
            applied.note("created group", group)
        elif set_rota(by=by, group=group, is_rota=rota):
            applied.note("changed on_call of group", slug)
    for person in inventory["people"]:
        _person(person, by, applied)
    for number, person in enumerate(inventory["people"]):
        if "manager" in person:
            _manager(person, f"people.{number}.manager", by, applied)
    for entry in inventory["endpoints"]:
        _endpoint(dict(entry), by, applied)
    return applied


def _group(slug: str, where: str) -> Group:
    group = Group.objects.filter(slug=slug).first()
    if group is None:
        raise InvalidInput({where: f"There is no group {slug!r}; name it under groups."})
    return group


def _person(person: dict[str, Any], by: User | None, applied: Applied) -> None:
    email = User.objects.normalize_email(person["email"])
    user = User.objects.filter(email=email).first()
    if user is None:
        user = create_user(
            by=by,
            email=email,
            full_name=person["name"],
            time_zone=person["time_zone"],
            is_auditor=person["auditor"],
            is_administrator=person["administrator"],
        )
        applied.note("created person", email)
    for slug in person["groups"]:
        group = _group(slug, f"people.{email}.groups")
        if not group.memberships.filter(user=user).exists():
            join_group(by=by, user=user, group=group)
            applied.note(f"added to {slug}:", email)


def _manager(person: dict[str, Any], where: str, by: User | None, applied: Applied) -> None:
    user = User.objects.get(email=User.objects.normalize_email(person["email"]))
    manager = None
    if person["manager"]:
        email = User.objects.normalize_email(person["manager"])
        manager = User.objects.filter(email=email).first()
        if manager is None:
            raise InvalidInput({where: "There is no such person."})
    try:
        if set_manager(by=by, user=user, manager=manager):
            applied.note("changed manager of", user.email)
    except InvalidInput as error:
        raise InvalidInput({where: error.errors["manager"]}) from error


def _endpoint(entry: dict[str, Any], by: User | None, applied: Applied) -> None:
    profiles, slug = entry.pop("profiles"), entry["slug"]
    rotated = {
        Use.UPSTREAM: entry.pop("rotator", None),
        Use.HANDED_OUT: entry.pop("handed_out_rotator", None),
    }
    owner = User.objects.filter(email=User.objects.normalize_email(entry["owner"])).first()
    if owner is None:
        raise InvalidInput({f"endpoints.{slug}.owner": "There is no such person."})
    entry["owner"] = owner
    endpoint = Endpoint.objects.filter(slug=slug).first()
    if endpoint is None:
        endpoint = create_endpoint(by=by, **entry)
        applied.note("created endpoint", slug)
    elif changed := change(endpoint, by=by, **entry):
        applied.note(f"changed {', '.join(changed)} of endpoint", slug)
    for use, said in rotated.items():
        if said is not None:
            _rotator(endpoint, use, dict(said), by, applied)
    for profile in profiles:
        _profile(endpoint, dict(profile), by, applied)


def _rotator(
    endpoint: Endpoint, use: Use, said: dict[str, Any], by: User | None, applied: Applied
) -> None:
    name = "rotator" if use == Use.UPSTREAM else "handed_out_rotator"
    try:
        changed = set_rotator(by=by, endpoint=endpoint, use=use, **said)
    except InvalidInput as error:
        raise InvalidInput(
            {f"endpoints.{endpoint.slug}.{name}.{key}": text for key, text in error.errors.items()}
        ) from error
    if changed:
        applied.note(f"changed {', '.join(changed)} of {name} of endpoint", endpoint.slug)


def _profile(endpoint: Endpoint, entry: dict[str, Any], by: User | None, applied: Applied) -> None:
    name = f"{endpoint.slug}/{entry['slug']}"
    for field_name in ("requesters", "reviewers"):
        entry[field_name] = _group(entry[field_name], f"endpoints.{name}.{field_name}")
    profile = AccessProfile.objects.filter(endpoint=endpoint, slug=entry["slug"]).first()
    try:
        _set(endpoint, profile, name, entry, by, applied)
    except InvalidInput as error:
        raise InvalidInput(
            {f"endpoints.{name}.{key}": text for key, text in error.errors.items()}
        ) from error


def _set(
    endpoint: Endpoint,
    profile: AccessProfile | None,
    name: str,
    entry: dict[str, Any],
    by: User | None,
    applied: Applied,
) -> None:
    if profile is None:
        create_profile(by=by, endpoint=endpoint, **entry)
        applied.note("created access profile", name)
    elif changed := change(profile, by=by, **entry):
        applied.note(f"changed {', '.join(changed)} of access profile", name)
