"""Client certificates: signed by a CA in Vault, for endpoints that verify them by themselves."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from pydantic import Field
from ulid import ULID

from audit import clock
from credentials import vault
from credentials.kinds import base
from credentials.kinds.base import Kind, Minted, Stray
from credentials.models import Credential
from credentials.states import CredentialState
from endpoints.models import AccessProfile

OUR_NAME = re.compile(r"kt-[0-9a-hjkmnp-tv-z]{26}")


class Settings(base.Settings):
    """`role` is the PKI role that signs; examples/mtls/ has one as it should be."""

    mount: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")] = "pki"
    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_-]{0,58}[A-Za-z0-9])?$")]


class ClientCertificate(Kind):
    slug = "client_certificate"
    label = "Client certificate"
    Settings = Settings

    def describe(self, settings: Mapping[str, Any]) -> str:
        return (
            "A certificate and its private key, for an endpoint that asks for one (mTLS). It ends "
            "with the grant by itself. Taken back before that, the CA says so at once by OCSP, "
            "and in its list of revoked certificates as soon as that is fetched again."
        )

    def mint(self, credential: Credential, lifetime: int, minted: Minted) -> None:
        """The key is made here and never leaves but to its holder: Vault certifies it unseen, so
        where its answer is lost nobody has the key. Hence nothing has to be confirmed."""
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        # Whole seconds, and never later than the grant.
        end = credential.grant.ends_at.astimezone(dt.UTC).replace(microsecond=0)
        uri = f"urn:keyturn:grant:{credential.grant_id}"
        role = credential.settings["role"]
        signed = vault.sign_certificate(
            credential.settings["mount"],
            role,
            csr=request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode(),
            name=credential.name,
            uri=uri,
            not_after=end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        minted.handles = {"serial": signed.serial}
        certificate = x509.load_pem_x509_certificate(signed.certificate.encode())
        minted.expires_at = certificate.not_valid_after_utc
        if (
            certificate.public_key() != key.public_key()
            or certificate.not_valid_after_utc > end
            or _names(certificate) != (credential.name, [uri])
        ):
            raise vault.VaultInvalid(
                f"sign a certificate: the PKI role {role} signs something else than it was asked to"
            )
        own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        minted.parts = {
            "secret": "".join([own, _line(signed.certificate), *_between(signed.chain)]),
            "certificate": _line(signed.certificate),
            "private_key": own,
            "ca_chain": "".join(map(_line, signed.chain)),
        }

    def confirm(self, credential: Credential, lifetime: int) -> None:
        pass

    def find(self, credentials: Iterable[Credential]) -> dict[str, dict[str, Any]]:
        lost = list(credentials)
        found = {}
        for mount in {each.settings["mount"] for each in lost}:
            serials = {
                info["common_name"]: serial for serial, info in vault.certificates(mount).items()
            }
            for each in lost:
                if each.settings["mount"] == mount and each.name in serials:
                    found[str(each.pk)] = {"serial": serials[each.name]}
        return found

    def revoke(self, credential: Credential) -> None:
        vault.revoke_certificate(credential.settings["mount"], credential.handles["serial"])

    def gone(self, credentials: list[Credential]) -> dict[str, str]:
        found = {}
        moment = clock.now()
        cas: dict[str, list[x509.Certificate]] = {}
        for each in credentials:
            if each.expires_at is not None and each.expires_at <= moment:
                found[str(each.pk)] = _over(each.expires_at)
                continue
            mount = each.settings["mount"]
            pem = vault.certificate(mount, each.handles["serial"])
            if pem is None:
                continue
            certificate = x509.load_pem_x509_certificate(pem.encode())
            if certificate.not_valid_after_utc <= moment:
                found[str(each.pk)] = _over(certificate.not_valid_after_utc)
                continue
            if mount not in cas:
                cas[mount] = [
                    x509.load_pem_x509_certificate(ca.encode()) for ca in vault.issuers(mount)
                ]
            revoked = _revoked_at(mount, certificate, cas[mount])
            if revoked is not None:
                found[str(each.pk)] = (
                    f"the CA's OCSP responder says: revoked at {revoked:%Y-%m-%d %H:%M:%S} UTC"
                )
        return found

    def strays(self) -> Iterable[Stray]:
        moment = clock.now()
        for mount in sorted(_mounts()):
            for serial, info in vault.certificates(mount).items():
                name = info.get("common_name") or ""
                over = dt.datetime.fromisoformat(info["not_after"]) <= moment
                if OUR_NAME.fullmatch(name) and not over:
                    owner = str(ULID.from_str(name[3:].upper()).to_uuid())
                    yield Stray(f"the CA at {mount}", name, owner, f"{mount}/{serial}")

    def end_stray(self, stray: Stray) -> None:
        mount, _, serial = stray.key.partition("/")
        vault.revoke_certificate(mount, serial)


def _names(certificate: x509.Certificate) -> tuple[str, list[str]]:
    """Whom it names: the subject, and all alternatives as they are."""
    subject = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "".join(str(each.value) for each in subject), []
    return "".join(str(each.value) for each in subject), [
        each.value if isinstance(each, x509.UniformResourceIdentifier) else repr(each)
        for each in extension.value
    ]


def _line(pem: str) -> str:
    return pem.strip() + "\n"


def _between(chain: list[str]) -> list[str]:
    """The issuers that a server may need to be sent: all but roots, which it has."""
    read = [(pem, x509.load_pem_x509_certificate(pem.encode())) for pem in chain]
    return [_line(pem) for pem, ca in read if ca.subject != ca.issuer]


def _over(end: dt.datetime) -> str:
    return f"its own notAfter, {end:%Y-%m-%d %H:%M:%S} UTC, has passed"


def _revoked_at(
    mount: str, certificate: x509.Certificate, cas: list[x509.Certificate]
) -> dt.datetime | None:
    """When the CA's responder says that it was revoked; None while it doesn't say so."""
    for ca in cas:
        if ca.subject != certificate.issuer:
            continue
        question = ocsp.OCSPRequestBuilder().add_certificate(certificate, ca, hashes.SHA256())
        told = ocsp.load_der_ocsp_response(
            vault.ocsp(mount, question.build().public_bytes(Encoding.DER))
        )
        if (
            told.response_status == ocsp.OCSPResponseStatus.SUCCESSFUL
            and told.serial_number == certificate.serial_number
            and told.certificate_status == ocsp.OCSPCertStatus.REVOKED
        ):
            return told.revocation_time_utc
    return None


def _mounts() -> set[str]:
    """Wherever one could be: by the profiles as they are, and by what was minted before."""
    slug = ClientCertificate.slug
    now = AccessProfile.objects.filter(credential_kind=slug)
    before = Credential.objects.filter(kind=slug).exclude(state=CredentialState.REVOKED)
    return {
        *now.values_list("kind_settings__mount", flat=True),
        *before.order_by().values_list("settings__mount", flat=True).distinct(),
    }


KIND = ClientCertificate()
