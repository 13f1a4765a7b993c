"""Comments on a request, and handing it to another reviewer."""

from rest_framework import serializers

from accessrequests.actions.talking import COMMENT_LENGTH, NOTE_LENGTH
from accessrequests.models import Comment, HandOver
from accounts.api import StrictSerializer, WordsField


class SaySerializer(StrictSerializer):
    text = WordsField(max_length=COMMENT_LENGTH)
    kind = serializers.ChoiceField(
        choices=Comment.Kind.choices,
        required=False,
        help_text="`question`: of a reviewer to the requester; else `comment`",
    )


class CommentSerializer(serializers.ModelSerializer[Comment]):
    author = serializers.EmailField(source="author.email", read_only=True)

    class Meta:
        model = Comment
        fields = ("id", "author", "kind", "text", "at")
        read_only_fields = fields


class HandSerializer(StrictSerializer):
    to = serializers.EmailField(help_text="somebody else who may decide it")
    note = serializers.CharField(required=False, allow_blank=True, max_length=NOTE_LENGTH)


class HandOverSerializer(serializers.ModelSerializer[HandOver]):
    by = serializers.EmailField(source="by.email", read_only=True)
    to = serializers.EmailField(source="to.email", read_only=True)

    class Meta:
        model = HandOver
        fields = ("id", "by", "to", "note", "at")
        read_only_fields = fields
