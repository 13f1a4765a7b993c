"""A grant's scope as OAuth writes it."""

import re

from endpoints.scope import Scope

# What RFC 6749 lets stand between the spaces of `scope`. A model of another name is in
# `authorization_details` alone.
_TOKEN = re.compile(r"[!#-\[\]-~]+")


def space_separated(scope: Scope) -> str:
    """The models, with spaces between."""
    return " ".join(model for model in sorted(scope.models) if _TOKEN.fullmatch(model))
