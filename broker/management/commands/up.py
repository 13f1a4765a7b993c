"""Run all of Keyturn on this host: its servers, its processes and a demo upstream."""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from broker.demo.data import SIGN_INS
from broker.embedded.errors import StartError
from broker.embedded.ports import Ports
from broker.embedded.supervisor import Supervisor

ADMINISTRATOR = "admin@example.com"


class Command(BaseCommand):
    help = "Run everything on this host: servers, portal, gateway, workers, demo upstream."
    # It starts before there is a database, and its children check themselves.
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--state-dir",
            type=Path,
            default=settings.KEYTURN_STATE_DIR,
            help="where data, logs and generated secrets are kept (%(default)s)",
        )
        parser.add_argument(
            "--free-ports",
            action="store_true",
            help="listen on any free ports instead of the configured ones",
        )
        parser.add_argument("--no-worker", action="store_true", help="don't start the worker")
        parser.add_argument("--no-beat", action="store_true", help="don't start beat")

    def handle(self, *_args: Any, **options: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _stop)
        without = [name for name in ("worker", "beat") if options[f"no_{name}"]]
        keyturn = Supervisor(
            options["state_dir"],
            ports=Ports.free() if options["free_ports"] else _configured_ports(),
            say=self._say,
            without=without,
        )
        try:
            self._say(f"Keyturn starts; its state is in {keyturn.state.folder}")
            keyturn.start()
            self._say(self._summary(keyturn))
            while True:
                signal.pause()
        except StartError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                keyturn.stop()
            self._say("Stopped")

    def _say(self, line: str) -> None:
        # Lines come from several threads: one write each, so that they don't mix.
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def _summary(self, keyturn: Supervisor) -> str:
        width = max(len(email) for email, _, _ in SIGN_INS)
        password = max(len(word) for _, word, _ in SIGN_INS)
        style = self.style.SUCCESS
        lines = [
            "",
            style("Keyturn is ready."),
            "",
            f"  Portal         {keyturn.base_url}/",
            f"  REST API       {keyturn.base_url}/api/v1/docs/",
            f"  Gateway        {keyturn.gateway_url}/",
            f"  Demo upstream  {keyturn.upstream_url}/",
            f"  Logs           {keyturn.state.logs}",
            "",
            "  Sign in as",
            *(
                f"    {email:<{width}}  {word:<{password}}  {does}"
                for email, word, does in SIGN_INS
            ),
            *_administrator(keyturn),
            "",
            "  Ctrl-C stops everything.",
            "",
        ]
        return "\n".join(lines)


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Not by sys.stdout, which may be in the middle of a write.
    os.write(1, b"Stopping (Ctrl-C again stops at once)\n")
    raise KeyboardInterrupt


def _administrator(keyturn: Supervisor) -> list[str]:
    """A link for the first administrator, until somebody has used one."""
    # In no log: whoever reads it could be the administrator.
    link = keyturn.ask("administrator", ADMINISTRATOR, "--name=First administrator", "--another")
    return (
        ["", "  Or be the administrator yourself, by this link, once:", f"    {link}"]
        if link
        else []
    )


def _configured_ports() -> Ports:
    return Ports(
        web=settings.KEYTURN_WEB_PORT,
        gateway=settings.KEYTURN_GATEWAY_PORT,
        upstream=settings.KEYTURN_DEMO_UPSTREAM_PORT,
        postgres=settings.KEYTURN_POSTGRES_PORT,
        valkey=settings.KEYTURN_VALKEY_PORT,
        openbao=settings.KEYTURN_OPENBAO_PORT,
    )
