"""SCIM's filters as conditions on rows. The library reads them; values go to PostgreSQL as
parameters."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from scim2_models import InvalidFilterException, ScimFilter
from scim2_models.path import (
    AttributeBinding,
    AttrPath,
    CompareOperator,
    Comparison,
    FilterNode,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
    coerce_value,
)

from accounts.models import Membership
from accounts.scim.resources import WORK

LONGEST = 2000
NOTHING = Q(pk__in=[])
TEXT = {
    CompareOperator.co: "icontains",
    CompareOperator.sw: "istartswith",
    CompareOperator.ew: "iendswith",
    CompareOperator.gt: "gt",
    CompareOperator.ge: "gte",
    CompareOperator.lt: "lt",
    CompareOperator.le: "lte",
}
Condition = Callable[[CompareOperator, Any], Q]


@dataclass(frozen=True)
class Attribute:
    """How an attribute is compared, and when a row has it."""

    compared: Condition
    present: Q


def _equals(op: CompareOperator, condition: Q) -> Q:
    match op:
        case CompareOperator.eq:
            return condition
        case CompareOperator.ne:
            return ~condition
    raise InvalidFilterException(detail="This attribute is compared by eq and ne only.")


def _text(column: str, *, exactly: bool = False) -> Attribute:
    def compared(op: CompareOperator, value: Any) -> Q:
        if not isinstance(value, str) or not value.isprintable():
            raise InvalidFilterException(detail="The value must be text in quotes.")
        if op in (CompareOperator.eq, CompareOperator.ne):
            return _equals(op, Q(**{f"{column}__{'exact' if exactly else 'iexact'}": value}))
        lookup = TEXT[op].removeprefix("i" if exactly and TEXT[op].startswith("i") else "")
        return Q(**{f"{column}__{lookup}": value})

    return Attribute(compared, Q(**{f"{column}__gt": ""}))


def _flag(column: str) -> Attribute:
    return Attribute(lambda op, value: _equals(op, Q(**{column: value})), ~NOTHING)


def _moment(column: str) -> Attribute:
    def compared(op: CompareOperator, value: Any) -> Q:
        if op in (CompareOperator.eq, CompareOperator.ne):
            return _equals(op, Q(**{column: value}))
        if op not in TEXT or TEXT[op].startswith("i"):
            raise InvalidFilterException(detail="A time is compared by eq, ne, gt, ge, lt and le.")
        return Q(**{f"{column}__{TEXT[op]}": value})

    return Attribute(compared, ~NOTHING)


def _id(found: Callable[[uuid.UUID], Q], present: Q) -> Attribute:
    def compared(op: CompareOperator, value: Any) -> Q:
        try:
            return _equals(op, found(uuid.UUID(str(value))))
        except ValueError:
            return _equals(op, NOTHING)

    return Attribute(compared, present)


def _always(constant: Any) -> Attribute:
    return Attribute(
        lambda op, value: _equals(op, ~NOTHING if value == constant else NOTHING), ~NOTHING
    )


PEOPLE: Mapping[str, Attribute] = {
    "id": _id(lambda pk: Q(pk=pk), ~NOTHING),
    "external_id": _text("scim__external_id", exactly=True),
    "user_name": _text("email"),
    "display_name": _text("full_name"),
    "name.formatted": _text("full_name"),
    "active": _flag("is_active"),
    "timezone": _text("time_zone"),
    "emails": _text("email"),
    "emails.value": _text("email"),
    "emails.type": _always(WORK),
    "emails.primary": _always(True),
    "manager.value": _id(lambda pk: Q(manager=pk), Q(manager__isnull=False)),
    "meta.created": _moment("created_at"),
}
GROUPS: Mapping[str, Attribute] = {
    "id": _id(lambda pk: Q(pk=pk), ~NOTHING),
    "external_id": _text("scim__external_id", exactly=True),
    "display_name": _text("name"),
    # Rows of their own: a group may have to have two members.
    "members": _id(
        lambda pk: Q(pk__in=Membership.objects.filter(user=pk).values("group")),
        Q(pk__in=Membership.objects.values("group")),
    ),
    "members.value": _id(
        lambda pk: Q(pk__in=Membership.objects.filter(user=pk).values("group")),
        Q(pk__in=Membership.objects.values("group")),
    ),
    "meta.created": _moment("scim__created_at"),
    "meta.last_modified": _moment("scim__changed_at"),
}


def where(asked: ScimFilter[Any] | None, attributes: Mapping[str, Attribute]) -> Q:
    """What rows must fulfil to be found. Raises InvalidFilterException for what none can be
    found by."""
    if asked is None:
        return Q()
    if len(asked) > LONGEST:
        raise InvalidFilterException(detail=f"A filter has at most {LONGEST} characters.")
    return _Where(asked, attributes).visit(asked.ast)


class _Where(FilterVisitor[Q]):
    def __init__(
        self, asked: ScimFilter[Any], attributes: Mapping[str, Attribute], within: str = ""
    ) -> None:
        self.asked, self.attributes, self.within = asked, attributes, within

    def _found(self, path: AttrPath, *, compared: bool) -> tuple[Attribute, AttributeBinding]:
        if self.within:
            path = AttrPath(self.within, path.attr)
        resolve = self.asked.resolve_comparison if compared else self.asked.resolve
        binding = resolve(path)
        name = binding.field_name if binding is not None else ""
        if binding is not None and binding.sub_field_name:
            name = f"{name}.{binding.sub_field_name}"
        if binding is None or name not in self.attributes:
            raise InvalidFilterException(detail=f"Nothing is found by {path}.")
        return self.attributes[name], binding

    def visit_comparison(self, node: Comparison) -> Q:
        attribute, binding = self._found(node.attr_path, compared=True)
        value = coerce_value(binding, node.value, node.op)
        if value is None:
            return _equals(node.op, ~attribute.present)
        return attribute.compared(node.op, value)

    def visit_present(self, node: Present) -> Q:
        return self._found(node.attr_path, compared=False)[0].present

    def visit_not(self, node: Not) -> Q:
        return ~self.visit(node.expr)

    def visit_logical_expr(self, node: LogicalExpr) -> Q:
        first, *others = (self.visit(term) for term in node.terms)
        for other in others:
            first = first & other if node.op == LogicalOperator.and_ else first | other
        return first

    def visit_value_path(self, node: ValuePath) -> Q:
        # Nobody has two addresses, and a member has nothing but its id to be selected by.
        if node.sub_attr is not None or self.within:
            raise InvalidFilterException(detail="A filter selects values by [] alone.")
        inner: FilterNode = node.val_filter
        return _Where(self.asked, self.attributes, node.attr_path.attr).visit(inner)
