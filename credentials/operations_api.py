"""What operators look at, and having what is owed tried at once."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.api import ApiView, StrictSerializer, caller, said_in
from accounts.parsers import StrictJSONParser
from broker.errors import NotFound
from credentials.actions import try_target_now
from credentials.models import Reconciliation, Rotation
from credentials.operations import (
    GROUPS,
    Group,
    found_outside,
    latest_look,
    may_look,
    rotations,
    summary,
)
from credentials.rotation_api import RotationSerializer


class StillThereSerializer(serializers.Serializer[Group]):
    kind = serializers.CharField()
    target = serializers.CharField()
    count = serializers.IntegerField(help_text="credentials that are revoking")
    due = serializers.IntegerField(help_text="of them, those that should be gone")
    stuck = serializers.IntegerField(help_text="of these, for more than a minute")
    waiting = serializers.IntegerField(help_text="of them, those whose time hasn't come")
    since = serializers.DateTimeField(allow_null=True, help_text="when the first was to be gone")
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    error = serializers.CharField(allow_blank=True)


class OpenRotationSerializer(RotationSerializer):
    late = serializers.SerializerMethodField()

    class Meta(RotationSerializer.Meta):
        fields = (*RotationSerializer.Meta.fields, "late")
        read_only_fields = fields

    def get_late(self, rotation: Rotation) -> bool:
        return rotation.is_late(self.context["now"])


class LookSerializer(serializers.ModelSerializer[Reconciliation]):
    class Meta:
        model = Reconciliation
        fields = ("at", "took", "looked_at", "found", "ended", "vanished", "failures")
        read_only_fields = fields


class OutsideSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField(help_text="of the audit event")
    at = serializers.DateTimeField()
    event = serializers.CharField()


class OperationsSerializer(serializers.Serializer[Any]):
    now = serializers.DateTimeField()
    count = serializers.IntegerField(help_text="credentials that are revoking")
    due = serializers.IntegerField()
    stuck = serializers.IntegerField()
    waiting = serializers.IntegerField()
    groups = StillThereSerializer(many=True, help_text=f"by kind and target, the worst {GROUPS}")
    rotations = OpenRotationSerializer(many=True, help_text="those under way, the oldest first")
    look = LookSerializer(allow_null=True, help_text="the last one at what is out there")
    found_outside = OutsideSerializer(many=True, help_text="without a record, in the last days")


class TryTargetSerializer(StrictSerializer):
    kind = serializers.CharField(max_length=50)
    target = serializers.CharField(max_length=300)


class TriedSerializer(serializers.Serializer[Any]):
    tried = serializers.IntegerField(help_text="those that weren't being tried already")


@extend_schema(tags=["operations"])
class OperationsView(ApiView):
    """What is still to be taken back, and what keeps it."""

    @extend_schema(operation_id="operations_retrieve", responses={200: OperationsSerializer})
    def get(self, request: Request) -> Response:
        """What is due, stuck, under way, or out there without a record. For auditors and
        administrators. The credentials themselves are `/api/v1/credentials/?state=revoking`."""
        if not may_look(caller(request)):
            raise NotFound
        found = summary()
        shown = {
            "now": found.now,
            "count": found.count,
            "due": found.due,
            "stuck": found.stuck,
            "waiting": found.waiting,
            "groups": found.groups[:GROUPS],
            "rotations": [rotation for rotation, _ in rotations(found.now)],
            "look": latest_look(),
            "found_outside": found_outside(found.now),
        }
        return Response(OperationsSerializer(shown, context={"now": found.now}).data)


@extend_schema(tags=["operations"])
class TryTargetView(ApiView):
    """All that waits for a target."""

    parser_classes = (StrictJSONParser,)

    @extend_schema(
        operation_id="operations_try",
        request=TryTargetSerializer,
        responses={200: TriedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Have all that waits for this target tried at once. For administrators."""
        if not may_look(caller(request)):
            raise NotFound
        said = said_in(TryTargetSerializer, request)
        return Response({"tried": try_target_now(by=caller(request), **said)})
