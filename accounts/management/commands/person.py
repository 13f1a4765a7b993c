import argparse
import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts import factors
from accounts.actions import deactivate_user, leave_group, set_password
from accounts.invitations import invite, invite_new
from accounts.models import Group, User
from broker.errors import Conflict, InvalidInput, NotFound


class Command(BaseCommand):
    help = "One person: create, invite, set a password, remove a lost factor, deactivate."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True)
        create = verbs.add_parser("create", help="add a person, and print a link that lets them in")
        create.add_argument("email")
        create.add_argument("name", help="full name")
        create.add_argument(
            "--time-zone", default="UTC", help="such as Europe/Berlin (%(default)s)"
        )
        create.add_argument("--auditor", action="store_true", help="reads everything")
        for verb, words in (
            ("invite", "print a link that lets them in once, to set a password"),
            ("password", "set it: asked for, or one line on standard input"),
            ("leave", "take out of a group"),
            ("factor", "take away the second factor of somebody who lost it"),
            ("deactivate", "close the account; what they hold ends"),
        ):
            command = verbs.add_parser(verb, help=words)
            if verb == "factor":
                command.add_argument("what", choices=["remove"])
            command.add_argument("email")
            if verb == "leave":
                command.add_argument("group", help="the group's slug")

    def handle(self, *_args: Any, **options: Any) -> None:
        if options["verb"] == "create":
            self._create(options)
            return
        user = User.objects.filter(email=User.objects.normalize_email(options["email"])).first()
        if user is None:
            raise CommandError(f"There is no person with the e-mail {options['email']}.")
        if options["verb"] == "deactivate":
            deactivate_user(by=None, user=user)
            self.stdout.write(f"{user} is deactivated.")
        elif options["verb"] == "invite":
            try:
                self.stdout.write(invite(by=None, person=user, anew=True))
            except Conflict as error:
                raise CommandError(error.detail) from error
        elif options["verb"] == "factor":
            try:
                factors.remove(by=None, person=user)
            except NotFound as error:
                raise CommandError(error.detail) from error
            self.stdout.write(f"{user} has no second factor, and is signed out everywhere.")
        elif options["verb"] == "leave":
            group = Group.objects.filter(slug=options["group"]).first()
            if group is None:
                raise CommandError(f"There is no group {options['group']!r}.")
            leave_group(by=None, user=user, group=group)
            self.stdout.write(f"{user} is not in {group}.")
        else:
            # Never as an argument: those are in the shell's history and in everybody's `ps`.
            typed = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
            try:
                set_password(by=None, user=user, password=typed)
            except InvalidInput as error:
                raise CommandError(f"password: {error.errors['password']}") from error
            self.stdout.write(f"{user} has a new password.")

    def _create(self, options: dict[str, Any]) -> None:
        try:
            _, link = invite_new(
                by=None,
                email=options["email"],
                full_name=options["name"],
                time_zone=options["time_zone"],
                is_auditor=options["auditor"],
            )
        except InvalidInput as error:
            lines = [f"{field}: {message}" for field, message in error.errors.items()]
            raise CommandError("\n".join(lines)) from error
        self.stdout.write(link)
