"""API tokens: one's own, and those of the service accounts that one answers for."""

import uuid
from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import actions, scopes, stepup
from accounts.actions.tokens import NAME_LENGTH, TOKEN_DAYS, owner_of_new, purpose
from accounts.door import fetch
from accounts.models import ApiToken, User
from accounts.scopes import BY_ITSELF, Verb
from accounts.session import person
from accounts.validation import add_errors
from audit import clock
from broker.errors import InvalidInput

TICK = {"class": "form-check-input"}


class TokenForm(forms.Form):
    """An API token to be made for somebody."""

    name = forms.CharField(
        label="What will use it",
        max_length=NAME_LENGTH,
        help_text="So that you recognise it later, such as “Nightly evaluation”.",
        widget=forms.TextInput(attrs={"class": "form-control", "autocomplete": "off"}),
        error_messages={"required": "Say what will use it."},
    )
    days = forms.IntegerField(
        label="For how many days",
        min_value=1,
        max_value=TOKEN_DAYS,
        initial=30,
        help_text=f"At most {TOKEN_DAYS}. Then you make another.",
        widget=forms.NumberInput(attrs={"class": "form-control", "inputmode": "numeric"}),
    )
    verbs = forms.MultipleChoiceField(
        label="To",
        initial=[Verb.READ, Verb.REQUEST],
        widget=forms.CheckboxSelectMultiple(attrs=TICK),
        error_messages={"required": "Say what for."},
    )
    endpoints = forms.MultipleChoiceField(
        label="At",
        required=False,
        help_text="None chosen: at all that its owner sees, now and later.",
        widget=forms.CheckboxSelectMultiple(attrs=TICK),
    )

    def __init__(self, owner: User, *args: Any) -> None:
        super().__init__(*args)
        verbs = [verb for verb in Verb if verb in BY_ITSELF or not owner.is_service]
        fields: dict[str, Any] = self.fields
        fields["verbs"].choices = [(verb.value, verb.label) for verb in verbs]
        fields["endpoints"].choices = [
            (str(pk), slug) for pk, slug in scopes.endpoints_seen_by(owner).items()
        ]


@never_cache
@require_safe
def tokens(request: HttpRequest) -> HttpResponse:
    """What acts for one, and for the service accounts that one owns."""
    user = person(request)
    rows = list(
        ApiToken.objects.filter(Q(owner=user) | Q(owner__owner=user)).select_related("owner")[:200]
    )
    context = {
        "rows": rows,
        "now": clock.now(),
        "services": user.service_accounts.filter(is_active=True).order_by("full_name"),
    }
    return render(request, "accounts/tokens.html", context)


@never_cache
@sensitive_variables("text", "context")
@require_http_methods(["GET", "HEAD", "POST"])
def token_new(request: HttpRequest) -> HttpResponse:
    """Make one. The answer to the POST has it, and nothing else ever does: there is no redirect,
    and `no-store` keeps it out of the browser's caches."""
    user = person(request)
    owner = owner_of_new(user, request.GET.get("owner", ""))
    # Before anything is typed: a form isn't sent again after a second factor.
    stepup.proofs(request).check(purpose(owner))
    form, status = TokenForm(owner, request.POST or None), 200
    if request.method == "POST":
        status = 400
        if form.is_valid():
            data = form.cleaned_data
            try:
                row, text = actions.create_token(
                    by=user,
                    owner=owner,
                    name=data["name"],
                    days=data["days"],
                    verbs=data["verbs"],
                    endpoints=[uuid.UUID(pk) for pk in data["endpoints"]],
                    proofs=stepup.proofs(request),
                )
            except InvalidInput as error:
                add_errors(form, error)
            else:
                context: dict[str, Any] = {"token": row, "text": text, "owner": owner}
                return render(request, "accounts/token_made.html", context)
    context = {"form": form, "owner": owner, "mine": owner.pk == user.pk}
    return render(request, "accounts/token_new.html", context, status=status)


@never_cache
@require_POST
def token_revoke(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Make an API token good for nothing."""
    user = person(request)
    token = fetch(ApiToken.objects.visible_to(user).select_related("owner"), pk)
    actions.revoke_token(by=user, token=token)
    messages.success(request, f"API token “{token}” is revoked.")
    mine = user.pk in {token.owner_id, token.owner.owner_id}
    return redirect("tokens" if mine else reverse("person", args=[token.owner_id]))
