"""What an engine of Vault makes on a lease: the part that `database` and `engine` share.

The lease hangs on an orphan token of its own, which nobody is handed, so that the token's accessor
takes all of it. A lease doesn't tell which token it hangs on: where the answer that named it was
lost, it's found by elimination.
"""

import datetime as dt
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from django.conf import settings as django_settings
from pydantic import StringConstraints

from audit import clock
from credentials import vault
from credentials.failpoints import reached
from credentials.kinds import gateway_token
from credentials.kinds.base import Kind, Minted, Stray, TargetDown
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.models import AccessProfile

logger = logging.getLogger(__name__)

# Names are parts of Vault's paths: nothing in them that a path or a pattern could mean otherwise.
Mount = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]

# A lease that no row knows of may be one whose row is being written. After this it isn't: a mint
# that takes longer is in doubt itself (DOUBT_AFTER in credentials/actions/revoking.py).
ON_RECORD_AFTER = dt.timedelta(seconds=15)
SKEW = dt.timedelta(seconds=2)  # between Vault's clock and PostgreSQL's, at most
UNKNOWN_AFTER = dt.timedelta(minutes=2)


class Leases(Kind):
    """A credential that is a lease of an engine."""

    def path(self, settings: Mapping[str, Any]) -> str:
        """Where in Vault it's read, which is also what its lease's id begins with."""
        raise NotImplementedError

    def take(self, credential: Credential, lease: vault.Lease, minted: Minted) -> None:
        """Put what the engine gave into `minted`. Raises VaultInvalid where it isn't as the
        profile says."""
        raise NotImplementedError

    def mint(self, credential: Credential, lifetime: int, minted: Minted) -> None:
        owner = vault.mint(
            name=credential.name,
            meta=gateway_token.meta_of(credential),
            lifetime=lifetime,
            policy=vault.OWNER_POLICY,
        )
        minted.accessor = owner.accessor
        reached("mint:token-made")
        try:
            lease = vault.take_lease(self.path(credential.settings), owner=owner.token)
        except vault.VaultError as error:
            if error.unknown:
                # There may be a lease, which the accessor doesn't lead to: `find` looks for both.
                minted.accessor = ""
            raise
        minted.handles["lease"] = lease.id
        if not lease.renewable:
            minted.expires_at = clock.now() + dt.timedelta(seconds=lease.seconds)
        self.take(credential, lease, minted)

    def confirm(self, credential: Credential, lifetime: int) -> None:
        moment = clock.now()
        # What minting took is gone from the grant.
        left = min(lifetime, int((credential.grant.ends_at - moment).total_seconds()))
        if left < 1:
            raise vault.VaultInvalid("confirm a lease: the grant has ended meanwhile")
        vault.raise_ttl(credential.accessor, left)
        if credential.expires_at is not None:
            return
        lasts = vault.renew_lease(credential.handles["lease"], left)
        if lasts < left:
            logger.warning(
                "%s lasts for %d s of %d: the engine's max_ttl is shorter", credential, lasts, left
            )
            Credential.objects.filter(pk=credential.pk, state=CredentialState.ACTIVE).update(
                expires_at=moment + dt.timedelta(seconds=lasts)
            )

    def lost(self, credentials: Iterable[Credential]) -> list[Credential]:
        """Those that can be looked for by now: whoever minted at the same time is on record."""
        latest = clock.now() - slowest() - SKEW - ON_RECORD_AFTER
        return [row for row in credentials if row.created_at < latest]

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        """By the token's metadata; the lease by elimination."""
        lost = self.lost(credentials)
        found = gateway_token.KIND.find(lost) if lost else {}
        by_path: dict[str, list[Credential]] = {}
        for row in lost:
            by_path.setdefault(self.path(row.settings), []).append(row)
        for path, rows in by_path.items():
            for lease, issued in self._unaccounted(vault.leases(path)):
                may_be = [row for row in rows if _may_be_of(row, issued)]
                if not may_be:
                    continue
                # Whoever has a token, and of these whoever began last before it was issued.
                likely = max(may_be, key=lambda row: (str(row.pk) in found, row.created_at))
                found.setdefault(str(likely.pk), {})["lease"] = lease
                rows.remove(likely)
        return found

    def _unaccounted(self, there: set[str]) -> Iterator[tuple[str, dt.datetime]]:
        """Those of these leases that no row names, and when Vault issued them."""
        for lease in there - self._rows(there).keys():
            data = vault.lookup_lease(lease)
            if data is not None:
                yield lease, dt.datetime.fromisoformat(data["issue_time"])

    def _rows(self, leases: set[str]) -> dict[str, Credential]:
        """The open credentials that name these leases."""
        rows = Credential.objects.exclude(state=CredentialState.REVOKED).filter(kind=self.slug)
        named = {row.handles.get("lease", ""): row for row in rows.only("id", "handles")}
        return {lease: row for lease, row in named.items() if lease in leases}

    def revoke(self, credential: Credential) -> None:
        lease = credential.handles.get("lease")
        if lease:
            try:
                vault.revoke_lease(lease)
            except vault.LeaseStuck as error:
                raise TargetDown(self.target(credential), str(error)) from error
        reached("revoke:lease-ended")
        if credential.accessor:
            vault.revoke(credential.accessor)

    def gone_from_vault(self, credentials: list[Credential]) -> list[Credential]:
        """Those of which Vault has neither lease nor token any more."""
        tokens = gateway_token.tokens_gone([row for row in credentials if row.accessor])
        rows = [row for row in credentials if not row.accessor or str(row.pk) in tokens]
        if len(rows) > gateway_token.FEW:
            there = set().union(
                *(vault.leases(path) for path in {self.path(row.settings) for row in rows})
            )
            return [row for row in rows if row.handles.get("lease") not in there]
        return [
            row
            for row in rows
            if "lease" not in row.handles or vault.lookup_lease(row.handles["lease"]) is None
        ]

    def settings_in_use(self) -> list[dict[str, Any]]:
        """Of profiles and of credentials that are still open."""
        profiles = AccessProfile.objects.filter(credential_kind=self.slug)
        rows = Credential.objects.exclude(state=CredentialState.REVOKED).filter(kind=self.slug)
        every = [
            *profiles.values_list("kind_settings", flat=True).distinct(),
            *rows.values_list("settings", flat=True).order_by().distinct(),
        ]
        return list({json.dumps(each, sort_keys=True): each for each in every}.values())

    def strays(self) -> Iterable[Stray]:
        """Leases. The tokens that they hang on are among those of `gateway_token`."""
        for path in {self.path(settings) for settings in self.settings_in_use()}:
            there = vault.leases(path)
            for lease, row in self._rows(there).items():
                yield Stray("Vault", lease, str(row.pk), json.dumps({"lease": lease}))
            moment = clock.now()
            for lease, issued in self._unaccounted(there):
                if moment > issued + UNKNOWN_AFTER:
                    yield Stray("Vault", lease, "", json.dumps({"lease": lease}))

    def end_stray(self, stray: Stray) -> None:
        vault.revoke_lease(json.loads(stray.key)["lease"])


def slowest() -> dt.timedelta:
    """For how long a mint may be under way until its lease is issued: two calls."""
    return dt.timedelta(seconds=2 * django_settings.VAULT_TIMEOUT)


def _may_be_of(row: Credential, issued: dt.datetime) -> bool:
    """Whether a lease that was issued then may be the one that this mint made."""
    return row.created_at - SKEW <= issued <= row.created_at + slowest() + SKEW
