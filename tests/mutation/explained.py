"""Why a change goes unnoticed, by place and change, as docs/mutation.md has them."""

EXPLAINED: dict[tuple[str, str], str] = {}
