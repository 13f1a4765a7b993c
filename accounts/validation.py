"""What Django found wrong with a row, as Keyturn says it."""

from django.core.exceptions import ValidationError


def messages(error: ValidationError) -> dict[str, str]:
    """What was wrong, by field."""
    return {field: " ".join(texts) for field, texts in error.message_dict.items()}
