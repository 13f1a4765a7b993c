"""/scim/v2/: reads what a directory asks, has it done, and says how things are then."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, TypeVar, cast

from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from pydantic import ValidationError
from rest_framework.exceptions import ParseError
from scim2_models import (
    Context,
    Error,
    InvalidSyntaxException,
    ListResponse,
    Meta,
    NotImplementedException,
    PatchOp,
    PreconditionFailedException,
    Resource,
    ResourceType,
    ResponseParameters,
    Schema,
    SCIMException,
    ScimPolicy,
    SearchRequest,
)
from scim2_models import EnterpriseUser as AnyEnterpriseUser
from scim2_models import Group as AnyGroup
from scim2_models import User as AnyUser

from accounts.door import fetch
from accounts.models import Group, Membership, ScimToken, User
from accounts.parsers import StrictJSONParser
from accounts.scim import actions, filtering, resources, tokens
from audit.context import origin, working_for
from audit.refusals import record_refusal
from broker.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    KeyturnError,
    NotFound,
    NotSignedIn,
    TooLarge,
    TooManyTries,
    Unavailable,
)

MEDIA_TYPE = "application/scim+json"
MOST_OPERATIONS = 1000
# What RFC 7643 has and Keyturn doesn't keep is passed over; what nobody has is refused by name.
KNOWN = ScimPolicy(remove_value_as_filter=ScimPolicy.RemoveValue.apply)
Known = TypeVar("Known", bound=Resource[Any])


@dataclass(frozen=True)
class Call:
    """One call of a directory's."""

    request: HttpRequest
    token: ScimToken

    def body(self) -> dict[str, Any]:
        """The JSON object that was sent. Raises ParseError, TooLarge, InvalidSyntaxException."""
        found = StrictJSONParser().parse(cast("IO[Any]", self.request))
        if not isinstance(found, dict):
            raise InvalidSyntaxException(detail="The body must be one JSON object.")
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            # Half a character: PostgreSQL stores none, and no error about it can be sent.
            raise InvalidSyntaxException(detail="The body isn't Unicode text.") from None
        return found

    def check_version(self, there: Resource[Any]) -> None:
        """Raise PreconditionFailedException for a change of something that was otherwise."""
        expected = self.request.headers.get("If-Match")
        version = there.meta.version if there.meta is not None else None
        if expected is None or expected.strip() == "*" or version is None:
            return
        if version not in {each.strip() for each in expected.split(",")}:
            raise PreconditionFailedException(detail="It was changed since: read it again.")

    def parameters(self, kind: type[Known]) -> ResponseParameters[Known]:
        """Which attributes the answer is to have."""
        asked = {
            name: self.request.GET[name]
            for name in ("attributes", "excludedAttributes")
            if name in self.request.GET
        }
        found: ResponseParameters[Known] = ResponseParameters[kind].model_validate(asked)  # type: ignore[valid-type]
        return found


Handler = Callable[..., HttpResponse]


def _error(error: Error, **headers: str) -> HttpResponse:
    text = error.model_dump_json(scim_ctx=Context.DEFAULT)
    return HttpResponse(text, status=error.status or 400, content_type=MEDIA_TYPE, headers=headers)


def _answer_to(error: Exception) -> HttpResponse | None:
    """The answer to an error in the form of RFC 7644, section 3.12; None for what nobody
    foresaw."""
    match error:
        case SCIMException():
            return _error(error.to_error())
        case ValidationError():
            return _error(Error.from_validation_errors(error)[0])
        case ParseError():
            return _error(Error(status=400, scim_type="invalidSyntax", detail=str(error.detail)))
        case RecursionError():
            return _error(Error(status=400, scim_type="invalidSyntax", detail="Nested too deeply."))
        case OperationalError():
            return _answer_to(Unavailable("The database can't answer; nothing was done."))
        case IntegrityError():
            return _answer_to(Conflict())
        case TooManyTries() | Unavailable():
            return _error(
                Error(status=error.status, detail=error.detail),
                **{"Retry-After": str(error.retry_after)},
            )
        case NotSignedIn():
            return _error(
                Error(status=401, detail=error.detail),
                **{"WWW-Authenticate": 'Bearer realm="keyturn-scim"'},
            )
        case KeyturnError():
            kinds = {InvalidInput: "invalidValue", Conflict: "uniqueness"}
            kind = next((kinds[each] for each in kinds if isinstance(error, each)), None)
            return _error(Error(status=error.status, scim_type=kind, detail=error.detail))
    return None


def _token(request: HttpRequest) -> ScimToken:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    found = tokens.token_of(text.strip()) if scheme.lower() == "bearer" else None
    if found is None:
        tokens.count_wrong_token()
        raise NotSignedIn("This takes a token of `manage.py scim_token create`.")
    return found


def handled(request: HttpRequest, handlers: Mapping[str, Handler], **named: str) -> HttpResponse:
    """The answer to one call, handled in one transaction, for a good token alone."""
    with working_for(replace(origin(), via="scim")):
        try:
            answer = _answered(request, handlers, **named)
        except Exception as error:
            found = _answer_to(error)
            if found is None:
                raise
            answer = found
    answer["Cache-Control"] = "no-store"
    return answer


def _answered(request: HttpRequest, handlers: Mapping[str, Handler], **named: str) -> HttpResponse:
    token = _token(request)
    handler = handlers.get("GET" if request.method == "HEAD" else request.method or "")
    if handler is None:
        detail = f"Here is {', '.join(handlers)} only."
        return _error(Error(status=405, detail=detail), Allow=", ".join(handlers))
    length = request.headers.get("Content-Length") or "0"
    if length.isdecimal() and int(length) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
        raise TooLarge
    with (
        working_for(replace(origin(), agent=token)),
        resources.PROVIDER,
    ):
        try:
            with transaction.atomic():
                return handler(Call(request, token), **named)
        except KeyturnError as error:
            record_refusal(error, by=token, method=request.method, path=request.path)
            raise


def _read(
    kind: type[Known], whole: type[Resource[Any]], body: dict[str, Any], ctx: Context
) -> Known:
    """What was said of a resource. Raises ValidationError, SCIMException for what no SCIM has."""
    try:
        whole.model_validate(body, scim_ctx=ctx, scim_policy=KNOWN)
    except ValidationError as error:
        for each in error.errors():
            if each["type"] == "extra_forbidden":
                raise SCIMException.from_error(Error.from_validation_error(each)) from error
    return kind.model_validate(body, scim_ctx=ctx)


def _patched(there: Known, whole: type[Resource[Any]], body: dict[str, Any]) -> Known:
    """What a resource is after these operations. Raises SCIMException and ValidationError."""
    operations = next((body[key] for key in body if key.lower() == "operations"), None)
    if isinstance(operations, list):
        if len(operations) > MOST_OPERATIONS:
            detail = f"At most {MOST_OPERATIONS} operations in one call."
            raise InvalidSyntaxException(detail=detail)
        for each in operations:
            _manager_as_entra_says_it(each)
    ctx = Context.RESOURCE_PATCH_REQUEST
    PatchOp[whole].model_validate(body, scim_ctx=ctx, scim_policy=KNOWN)  # type: ignore[valid-type]
    patch = PatchOp[type(there)].model_validate(body, scim_ctx=ctx)  # type: ignore[misc]
    after = there.model_copy(deep=True)
    patch.patch(after)
    return after


def _manager_as_entra_says_it(operation: Any) -> None:
    # A manager's id alone, where the RFC has an object.
    if isinstance(operation, dict) and isinstance(operation.get("value"), str):
        path = str(operation.get("path")).lower()
        if path == f"{resources.EnterpriseUser.__schema__}:manager".lower():
            operation["value"] = {"value": operation["value"]}


def _shown(
    found: Resource[Any], parameters: ResponseParameters[Any], status: int = 200
) -> HttpResponse:
    ctx = Context.RESOURCE_CREATION_RESPONSE if status == 201 else Context.RESOURCE_QUERY_RESPONSE
    text = found.model_dump_json(scim_ctx=ctx, response_parameters=parameters)
    answer = HttpResponse(text, status=status, content_type=MEDIA_TYPE)
    meta = found.meta
    if meta is not None and meta.location is not None:
        answer["Location"] = meta.location
    if meta is not None and meta.version is not None:
        answer["ETag"] = meta.version
    return answer


def _listed(found: "ListResponse[Any]", asked: Any = None) -> HttpResponse:
    text = found.model_dump_json(
        scim_ctx=Context.RESOURCE_QUERY_RESPONSE, response_parameters=asked
    )
    return HttpResponse(text, content_type=MEDIA_TYPE)


def _page(
    call: Call,
    kind: type[Known],
    rows: QuerySet[Any],
    attributes: Any,
    shown: Callable[[QuerySet[Any], SearchRequest[Known]], list[Known]],
) -> HttpResponse:
    if call.request.method == "POST":
        said = call.body()
    else:
        said = {key: call.request.GET[key] for key in call.request.GET}
        known = {"filter", "startIndex", "count", "attributes", "excludedAttributes"}
        said = {key: text for key, text in said.items() if key in known}
    asked: SearchRequest[Known] = SearchRequest[kind].model_validate(  # type: ignore[valid-type]
        said, scim_ctx=Context.SEARCH_REQUEST if call.request.method == "POST" else None
    )
    rows = rows.filter(filtering.where(asked.filter, attributes)).order_by("pk")
    start = max(asked.start_index or 1, 1)
    count = resources.PAGE if asked.count is None else asked.count
    count = min(max(count, 0), resources.LARGEST_PAGE)
    page = shown(rows[start - 1 : start - 1 + count], asked)
    found = ListResponse[kind](  # type: ignore[valid-type]
        total_results=rows.count(), start_index=start, items_per_page=len(page), resources=page
    )
    return _listed(found, asked)


# People.


def _people() -> QuerySet[User]:
    groups = Membership.objects.select_related("group__scim").order_by("group__name")
    found = actions.visible_people().select_related("scim", "manager")
    return found.prefetch_related(Prefetch("memberships", queryset=groups))


def _person(pk: str, *, lock: bool = False) -> User:
    if lock:
        fetch(actions.visible_people(), pk, lock=True)
    return fetch(_people(), pk)


def list_people(call: Call) -> HttpResponse:
    return _page(
        call,
        resources.Person,
        _people(),
        filtering.PEOPLE,
        lambda rows, _: [resources.person(row) for row in rows],
    )


def read_person(call: Call, pk: str) -> HttpResponse:
    found = resources.person(_person(pk))
    if found.meta is not None and found.meta.version == call.request.headers.get("If-None-Match"):
        return HttpResponse(status=304, headers={"ETag": found.meta.version or ""})
    return _shown(found, call.parameters(resources.Person))


def create_person(call: Call) -> HttpResponse:
    parameters, body = call.parameters(resources.Person), call.body()
    _default(body, "active", True)
    ctx = Context.RESOURCE_CREATION_REQUEST
    said = _read(resources.Person, AnyUser[AnyEnterpriseUser], body, ctx)
    user = actions.create_person(said=said)
    return _shown(resources.person(_person(str(user.pk))), parameters, 201)


def replace_person(call: Call, pk: str) -> HttpResponse:
    parameters, body, user = call.parameters(resources.Person), call.body(), _person(pk, lock=True)
    there = resources.person(user)
    call.check_version(there)
    _default(body, "active", user.is_active)
    ctx = Context.RESOURCE_REPLACEMENT_REQUEST
    said = _read(resources.Person, AnyUser[AnyEnterpriseUser], body, ctx)
    said.user_name = User.objects.normalize_email(said.user_name)
    said.replace(there)
    actions.update_person(user=user, said=said)
    return _shown(resources.person(_person(pk)), parameters)


def patch_person(call: Call, pk: str) -> HttpResponse:
    parameters, body, user = call.parameters(resources.Person), call.body(), _person(pk, lock=True)
    there = resources.person(user)
    call.check_version(there)
    after = _patched(there, AnyUser[AnyEnterpriseUser], body)
    actions.update_person(user=user, said=after)
    return _shown(resources.person(_person(pk)), parameters)


def remove_person(call: Call, pk: str) -> HttpResponse:
    user = _person(pk, lock=True)
    call.check_version(resources.person(user))
    actions.remove_person(user=user)
    return HttpResponse(status=204)


# Groups.


def _group(pk: str, *, lock: bool = False) -> Group:
    if lock:
        fetch(actions.visible_groups(), pk, lock=True)
    return fetch(actions.visible_groups().select_related("scim"), pk)


def _whole(group: Group) -> resources.Group:
    return resources.group(group, actions.members(group))


def list_groups(call: Call) -> HttpResponse:
    return _page(
        call,
        resources.Group,
        actions.visible_groups().select_related("scim"),
        filtering.GROUPS,
        _groups_shown,
    )


def _groups_shown(
    rows: QuerySet[Group], asked: SearchRequest[resources.Group]
) -> list[resources.Group]:
    if not _with_members(asked):
        return [resources.group(row, None) for row in rows]
    people = actions.visible_people().order_by("pk")
    whole = rows.prefetch_related(Prefetch("members", people, to_attr="seen"))
    return [resources.group(row, row.seen) for row in whole]


def _with_members(asked: ResponseParameters[Any]) -> bool:
    if asked.attributes:
        return any("members" in str(path).lower() for path in asked.attributes)
    return "members" not in {str(path).lower() for path in asked.excluded_attributes or ()}


def read_group(call: Call, pk: str) -> HttpResponse:
    parameters, group = call.parameters(resources.Group), _group(pk)
    found = _whole(group) if _with_members(parameters) else resources.group(group, None)
    version = found.meta.version if found.meta is not None else None
    if version is not None and version == call.request.headers.get("If-None-Match"):
        return HttpResponse(status=304, headers={"ETag": version})
    return _shown(found, parameters)


def create_group(call: Call) -> HttpResponse:
    parameters = call.parameters(resources.Group)
    said = _read(resources.Group, AnyGroup, call.body(), Context.RESOURCE_CREATION_REQUEST)
    group = actions.create_group(said=said)
    return _shown(_whole(_group(str(group.pk))), parameters, 201)


def replace_group(call: Call, pk: str) -> HttpResponse:
    parameters, body, group = call.parameters(resources.Group), call.body(), _group(pk, lock=True)
    there = _whole(group)
    call.check_version(there)
    said = _read(resources.Group, AnyGroup, body, Context.RESOURCE_REPLACEMENT_REQUEST)
    said.replace(there)
    actions.update_group(group=group, said=said)
    return _shown(_whole(_group(pk)), parameters)


def patch_group(call: Call, pk: str) -> HttpResponse:
    parameters, body, group = call.parameters(resources.Group), call.body(), _group(pk, lock=True)
    there = _whole(group)
    call.check_version(there)
    actions.update_group(group=group, said=_patched(there, AnyGroup, body))
    return _shown(_whole(_group(pk)), parameters)


def remove_group(call: Call, pk: str) -> HttpResponse:
    group = _group(pk, lock=True)
    call.check_version(_whole(group))
    actions.remove_group(group=group)
    return HttpResponse(status=204)


def _default(body: dict[str, Any], name: str, value: Any) -> None:
    if name not in {str(key).lower() for key in body}:
        body[name] = value


# What the service says of itself.


def show_config(_call: Call) -> HttpResponse:
    config = resources.CONFIG.model_copy(deep=True)
    config.meta = _meta("ServiceProviderConfig", "ServiceProviderConfig")
    return _shown(config, ResponseParameters())


def _meta(kind: str, path: str) -> Meta:
    return Meta(resource_type=kind, location=f"{settings.KEYTURN_BASE_URL}/scim/v2/{path}")


def _published(kind: str, found: Any) -> Any:
    copy = found.model_copy(deep=True)
    copy.meta = _meta(kind, f"{kind}s/{found.id}")
    return copy


def list_types(call: Call) -> HttpResponse:
    _no_filter(call)
    rows = [_published("ResourceType", each) for each in resources.PROVIDER.resource_types]
    return _listed(ListResponse[ResourceType](total_results=len(rows), resources=rows))


def read_type(_call: Call, pk: str) -> HttpResponse:
    for each in resources.PROVIDER.resource_types:
        if each.id == pk:
            return _shown(_published("ResourceType", each), ResponseParameters())
    raise NotFound


def _no_filter(call: Call) -> None:
    if "filter" in call.request.GET:
        # RFC 7644, section 4.
        raise Forbidden("What the service says of itself is not filtered.")


def list_schemas(call: Call) -> HttpResponse:
    _no_filter(call)
    rows = [_published("Schema", each) for each in resources.PROVIDER.schemas]
    return _listed(ListResponse[Schema](total_results=len(rows), resources=rows))


def read_schema(_call: Call, pk: str) -> HttpResponse:
    for each in resources.PROVIDER.schemas:
        if each.id == pk:
            return _shown(_published("Schema", each), ResponseParameters())
    raise NotFound


def refuse(_call: Call) -> HttpResponse:
    raise NotImplementedException(detail="Keyturn does not do this; see /ServiceProviderConfig.")


def nowhere(_call: Call, **_named: str) -> HttpResponse:
    raise NotFound
