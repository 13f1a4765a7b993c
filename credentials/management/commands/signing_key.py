from typing import Any

from django.core.management.base import BaseCommand, CommandError

from credentials import signing, vault


class Command(BaseCommand):
    help = "The versions of the key that signs JWTs. An operator of Vault rotates it, not Keyturn."

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            keys, moment = signing.all_versions()
        except vault.VaultError as error:
            raise CommandError(str(error)) from error
        signer, published = keys.signer(moment), keys.published(moment)
        for version in keys.versions:
            if version == signer:
                state = "signs"
            elif version not in published:
                state = "no longer published"
            elif version.number > signer.number:
                state = f"published, signs from {version.created_at + signing.lead():%F %T} UTC"
            else:
                state = "published for what it signed"
            self.stdout.write(f"{version.number:>4}  {version.alg}  {version.kid}  {state}")
