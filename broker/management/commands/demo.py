import argparse
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import openai
import requests
from django.core.management.base import BaseCommand, CommandError

from broker.demo.story import Story, WentWrong
from broker.embedded.errors import StartError
from broker.embedded.ports import Ports
from broker.embedded.supervisor import Supervisor, own_environment

# The story is about servers of its own, wherever Keyturn itself is configured to work.
NOT_TAKEN_OVER = ("DATABASE_URL", "REDIS_URL", "VAULT_", "KEYTURN_")


class Command(BaseCommand):
    help = "Start everything in a temporary folder, play the whole story, and check each step."
    requires_system_checks = []
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--quiet-start", action="store_true", help="don't show the start-up")

    def handle(self, *_args: Any, **options: Any) -> None:
        environ = {
            name: value
            for name, value in own_environment().items()
            if not name.startswith(NOT_TAKEN_OVER)
        }
        # The client's own line for each call would bury the story.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        folder = Path(tempfile.mkdtemp(prefix="keyturn-demo-"))
        began = time.monotonic()
        keyturn = Supervisor(
            folder,
            ports=Ports.free(),
            say=None if options["quiet_start"] else self.stdout.write,
            environ=environ,
            temporary=True,
        )
        try:
            with keyturn:
                self.stdout.write(f"Everything runs after {time.monotonic() - began:.1f} s.")
                Story(keyturn).play()
        except StartError as error:
            raise CommandError(str(error)) from error
        except (WentWrong, requests.RequestException, openai.OpenAIError) as error:
            raise CommandError(f"The story went wrong: {error}") from error
        except KeyboardInterrupt:
            raise CommandError("Stopped") from None
        self.stdout.write(self.style.SUCCESS("\nEvery step did what it says."))
