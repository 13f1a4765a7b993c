"""What is wrong with what was entered, from Django's words into Keyturn's and back."""

from django.core.exceptions import ValidationError
from django.forms import Form

from broker.errors import InvalidInput


def messages(error: ValidationError) -> dict[str, str]:
    """What was wrong with a row, by field."""
    return {field: " ".join(texts) for field, texts in error.message_dict.items()}


def add_errors(form: Form, error: InvalidInput, **names: str) -> None:
    """Say at each field of this form what an action refused; above all of them, what has no field.

    `names` are the form's own where they aren't the action's.
    """
    for field, message in error.errors.items():
        name = names.get(field, field)
        form.add_error(name if name in form.fields else None, message)
