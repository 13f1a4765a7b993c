import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Group
from accounts.scim.actions import govern_group, release_group


class Command(BaseCommand):
    help = "Whether a company's directory says, by SCIM, who is in a group."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        for verb, words in (
            ("govern", "it does, whatever the group lets its members do"),
            ("release", "it doesn't; whoever is in the group stays"),
        ):
            verbs.add_parser(verb, help=words).add_argument("group", help="the group's slug")

    def handle(self, *_args: Any, **options: Any) -> None:
        group = Group.objects.filter(slug=options["group"]).first()
        if group is None:
            raise CommandError(f"There is no group {options['group']!r}.")
        if options["verb"] == "govern":
            govern_group(group=group)
            self.stdout.write(f"The directory says who is in {group}.")
        else:
            release_group(group=group)
            self.stdout.write(f"The directory has no say in {group}.")
