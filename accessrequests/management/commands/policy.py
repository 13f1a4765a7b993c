import argparse
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from accessrequests.actions.policies import save_policy, stored
from accessrequests.policy import cases
from accessrequests.policy.document import PolicyDocument, json_schema
from accessrequests.policy.reading import locate, read, write
from broker.errors import InvalidInput

PATH = settings.BASE_DIR / "docs" / "policy.schema.json"


def schema() -> str:
    """The whole of docs/policy.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


class Command(BaseCommand):
    help = "Policies as YAML: apply, compare, export and test them."
    # `schema` and `test` are about files: they need no database and no settings of a deployment.
    requires_system_checks = []

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        file = argparse.ArgumentParser(add_help=False)
        file.add_argument(
            *("-f", "--file"),
            type=argparse.FileType(encoding="utf-8"),
            required=True,
            help="YAML; - for standard input",
        )
        apply = verbs.add_parser("apply", parents=[file], help="save what differs, all or nothing")
        apply.add_argument("--dry-run", action="store_true", help="check and compare only")
        apply.add_argument("--note", default="", help="why, for the history")
        verbs.add_parser(
            "diff", parents=[file], help="what apply would change; exits 1 if it would"
        )
        export = verbs.add_parser("export", help="what is in force, as apply takes it")
        export.add_argument("slugs", nargs="*", metavar="SLUG", help="these only")
        export.add_argument("-o", "--output", type=Path, help="a file instead of standard output")
        test = verbs.add_parser("test", help="whether requests come to what cases expect")
        test.add_argument("-f", "--file", dest="files", type=Path, nargs="+", required=True)
        verbs.add_parser("schema", help="JSON Schema of a policy").add_argument(
            "--write", action="store_true", help="write the file in docs (`make docs`)"
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            getattr(self, options["verb"])(options)
        except InvalidInput as error:
            lines = [f"{where}: {message}" for where, message in error.errors.items()]
            unchanged = ["Nothing was changed."] if options["verb"] == "apply" else []
            raise CommandError("\n".join([*unchanged, *lines])) from error

    def apply(self, options: dict[str, Any]) -> None:
        """Save each policy of the file that differs; all of them or none."""
        text, documents = self._documents(options)
        for line in differences(documents):
            self.stdout.write(line)
        with transaction.atomic():
            changed = save_all(text, documents, note=options["note"])
            if options["dry_run"]:
                transaction.set_rollback(True)
        for slug in changed:
            self.stdout.write(f"{'would save' if options['dry_run'] else 'saved'} policy {slug}")
        self.stdout.write(f"{len(changed)} changes.")

    def diff(self, options: dict[str, Any]) -> None:
        """Print what apply would change."""
        lines = differences(self._documents(options)[1])
        for line in lines:
            self.stdout.write(line)
        if lines:
            sys.exit(1)

    def export(self, options: dict[str, Any]) -> None:
        """Print what is in force."""
        documents = stored()
        if lacking := set(options["slugs"]) - {document.slug for document in documents}:
            raise CommandError(f"There is no policy {', '.join(sorted(lacking))}.")
        text = write([d for d in documents if not options["slugs"] or d.slug in options["slugs"]])
        if options["output"]:
            options["output"].write_text(text, encoding="utf-8")
        else:
            self.stdout.write(text, ending="")

    def test(self, options: dict[str, Any]) -> None:
        """Run cases; exits 1 if any comes to something else."""
        count = failed = 0
        for path in options["files"]:
            for outcome in cases.run(path):
                count += 1
                if outcome.passed:
                    self.stdout.write(f"ok    {outcome.name}")
                    continue
                failed += 1
                self.stdout.write(f"FAIL  {outcome.name} ({path}, line {outcome.line})")
                self.stdout.write(f"      expected  {outcome.expected}")
                self.stdout.write(f"      got       {outcome.got}")
        self.stdout.write(f"{count} cases, {failed} failed.")
        if failed:
            sys.exit(1)

    def schema(self, options: dict[str, Any]) -> None:
        """Print or write the JSON Schema of a policy."""
        if options["write"]:
            PATH.write_text(schema())
            self.stdout.write(f"Wrote {PATH.relative_to(settings.BASE_DIR)}")
        else:
            self.stdout.write(schema(), ending="")

    def _documents(self, options: dict[str, Any]) -> tuple[str, list[PolicyDocument]]:
        try:
            text = options["file"].read()
        except UnicodeDecodeError as error:
            raise InvalidInput({"file": "Must be UTF-8."}) from error
        return text, read(text)


def differences(documents: Sequence[PolicyDocument]) -> list[str]:
    """What saving these would change, as unified diffs of their YAML, a line each."""
    before = {document.slug: write([document]) for document in stored()}
    return [
        line
        for document in documents
        for line in difflib.unified_diff(
            before.get(document.slug, "").splitlines(),
            write([document]).splitlines(),
            f"{document.slug} (in force)" if document.slug in before else "/dev/null",
            f"{document.slug} (file)",
            lineterm="",
        )
    ]


def save_all(text: str, documents: Sequence[PolicyDocument], *, note: str) -> list[str]:
    """Save them; the slugs of those that changed. Raises InvalidInput by line and key.

    What one gives up, another may take over: those that fail are tried again after the others.
    """
    changed, waiting = [], list(enumerate(documents))
    while waiting:
        refused: list[tuple[int, PolicyDocument]] = []
        errors: dict[str, str] = {}
        for number, document in waiting:
            try:
                _, is_new = save_policy(by=None, document=document, note=note)
            except InvalidInput as error:
                refused.append((number, document))
                errors |= locate(text, number, error.errors)
                continue
            if is_new:
                changed.append(document.slug)
        if len(refused) == len(waiting):
            raise InvalidInput(errors)
        waiting = refused
    return changed
