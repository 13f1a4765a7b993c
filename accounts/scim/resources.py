"""People and groups as SCIM writes them: what is published, and what of it can be written.

Less than the RFC's own User: what Keyturn doesn't keep, it doesn't promise. Their names are the
RFC's, because the published schemas take theirs from them.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from django.conf import settings
from pydantic import Field
from scim2_models import (
    AnyExtension,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    Context,
    ETag,
    Extension,
    External,
    Filter,
    Meta,
    Mutability,
    Pagination,
    Patch,
    Reference,
    Required,
    Resource,
    ResourceType,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)
from scim2_models.urn import URN

from accounts import models

Kind = TypeVar("Kind", bound=Resource[Any])
PAGE, LARGEST_PAGE = 100, 200
WORK = "work"

_Seen = Annotated[str | None, Mutability.read_only]
_SeenExactly = Annotated[str | None, Mutability.read_only, CaseExact.true]


class Name(ComplexAttribute):
    """The parts of a person's name; the whole of it is made from them where nothing else is."""

    formatted: str | None = None
    family_name: str | None = None
    given_name: str | None = None


class Email(ComplexAttribute):
    """A person's one address: their userName."""

    value: _Seen = None
    type: _Seen = None
    primary: Annotated[bool | None, Mutability.read_only] = None


class GroupMembership(ComplexAttribute):
    """A group that the directory governs and this person is in."""

    value: _SeenExactly = None
    ref: Annotated[Reference["Group"] | None, Mutability.read_only] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    display: _Seen = None


class Manager(ComplexAttribute):
    """The person's manager, by id."""

    value: Annotated[str | None, Required.true, CaseExact.true] = None
    ref: Annotated[Reference["User"] | None, Required.false] = Field(  # type: ignore[type-arg]
        None, serialization_alias="$ref", validation_alias="$ref"
    )


class EnterpriseUser(Extension):
    """Enterprise User"""

    __schema__ = URN("urn:ietf:params:scim:schemas:extension:enterprise:2.0:User")

    manager: Manager | None = None


class User(Resource[AnyExtension]):
    """User Account"""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    # Others know people by it: policies, a provider of single sign-on, the record.
    user_name: Annotated[str | None, Mutability.immutable, Required.true, Uniqueness.server] = None
    name: Name | None = None
    display_name: str | None = None
    # Whoever leaves it out at a creation means true, at a replacement what it was.
    active: Annotated[bool | None, Required.true] = None
    timezone: str | None = Field(
        None, examples=["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney"]
    )
    emails: Annotated[list[Email] | None, Mutability.read_only] = None
    groups: Annotated[list[GroupMembership] | None, Mutability.read_only] = None


class GroupMember(ComplexAttribute):
    """A person in a group."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    ref: Annotated[Reference["User"] | None, Mutability.immutable] = Field(  # type: ignore[type-arg]
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User"])


class Group(Resource[Any]):
    """Group"""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true] = None
    members: list[GroupMember] | None = None


Person = User[EnterpriseUser]

CONFIG = ServiceProviderConfig(
    patch=Patch(supported=True),
    bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
    filter=Filter(supported=True, max_results=LARGEST_PAGE),
    change_password=ChangePassword(supported=False),
    sort=Sort(supported=False),
    etag=ETag(supported=True),
    pagination=Pagination(
        cursor=False, index=True, default_page_size=PAGE, max_page_size=LARGEST_PAGE
    ),
    authentication_schemes=[
        AuthenticationScheme(
            type=AuthenticationScheme.Type.oauthbearertoken,
            name="Bearer token",
            description="Authorization: Bearer kt_scim_…, made by `manage.py scim_token create`",
            spec_uri=Reference[External]("https://www.rfc-editor.org/rfc/rfc6750"),
            primary=True,
        )
    ],
)
PROVIDER = ScimProvider(
    models=[User, EnterpriseUser, Group],
    resource_types=[ResourceType.from_resource(Person), ResourceType.from_resource(Group)],
    config=CONFIG,
    # Directories send what their own schema has; Entra names what to remove in the value.
    policy=ScimPolicy(
        unknown=ScimPolicy.Unknown.ignore,
        remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    ),
)


def address(kind: str, pk: object) -> Any:
    """Where this is found: a reference, as the library types them."""
    return f"{settings.KEYTURN_BASE_URL}/scim/v2/{kind}/{pk}"


def whole_name(names: dict[str, Any], email: str) -> str:
    """One name out of what a directory says of it; the address where it says nothing."""
    parts = names.get("name") or {}
    in_parts = f"{parts.get('givenName') or ''} {parts.get('familyName') or ''}"
    found = names.get("displayName") or parts.get("formatted") or in_parts
    return found.strip() or email.partition("@")[0]


def names_of(person: User[Any]) -> dict[str, Any]:
    """What a directory says of a person's name, as it's kept."""
    said = person.model_dump(include={"display_name", "name"}, scim_ctx=Context.DEFAULT)
    return {key: said[key] for key in ("displayName", "name") if said.get(key)}


def person(user: models.User) -> User[EnterpriseUser]:
    """This person, for SCIM; `scim`, `manager` and `memberships` should be at hand."""
    record = record_of(user)
    names = record.names if record is not None else {}
    if record is None or whole_name(names, user.email) != user.full_name:
        # They renamed themself since, or the directory never said.
        names = {"displayName": user.full_name, "name": {"formatted": user.full_name}}
    found = Person(
        id=str(user.pk),
        external_id=record.external_id or None if record else None,
        user_name=user.email,
        display_name=names.get("displayName"),
        name=Name.model_validate(names["name"]) if names.get("name") else None,
        active=user.is_active,
        timezone=user.time_zone if user.time_zone != "UTC" else None,
        emails=[Email(value=user.email, type=WORK, primary=True)],
        groups=[
            GroupMembership(
                value=str(group.pk), ref=address("Groups", group.pk), display=group.name
            )
            for group in (membership.group for membership in user.memberships.all())
            if (governed := record_of(group)) is not None and governed.gone_at is None
        ]
        or None,
    )
    if user.manager is not None:
        found[EnterpriseUser] = EnterpriseUser(
            manager=Manager(
                value=str(user.manager.pk),
                ref=address("Users", user.manager.pk),
            )
        )
    return _dated(found, "User", user.created_at, record)


def group(row: models.Group, members: Iterable[models.User] | None) -> Group:
    """This group, for SCIM; without members where nobody asked for them."""
    record = record_of(row)
    found = Group(
        id=str(row.pk),
        external_id=record.external_id or None if record else None,
        display_name=row.name,
        members=[
            GroupMember(
                value=str(member.pk),
                ref=address("Users", member.pk),
                type="User",
            )
            for member in members or ()
        ]
        or None,
    )
    created = record.created_at if record else None
    return _dated(found, "Group", created, record, whole=members is not None)


def record_of(row: models.User | models.Group) -> models.ScimRecord | None:
    """What SCIM knows of a row, if anything."""
    return getattr(row, "scim", None)


def _dated(
    found: Kind,
    kind: str,
    created: dt.datetime | None,
    record: models.ScimRecord | None,
    *,
    whole: bool = True,
) -> Kind:
    text = found.model_dump_json(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    version = hashlib.sha256(text.encode()).hexdigest()[:32]
    found.meta = Meta(
        resource_type=kind,
        created=created,
        last_modified=record.changed_at if record else created,
        location=address(f"{kind}s", found.id),
        # Of two readings with the same one, either may stand for the other.
        version=f'W/"{version}"' if whole else None,
    )
    return found
