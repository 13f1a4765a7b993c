#!/bin/sh
# A CA for client certificates in the broker's namespace, and a PKI role for one endpoint. For an
# operator, with BAO_ADDR and BAO_TOKEN set: sh set-up.sh claims-tools > clients-ca.pem
set -eu

endpoint=$1
export BAO_NAMESPACE="${BAO_NAMESPACE:-keyturn}"

# A root of its own, so that nothing else is trusted by whoever trusts it. To have it signed by
# your company's instead: pki/intermediate/generate/internal, then pki/intermediate/set-signed.
if ! bao read -field=certificate pki/cert/ca >/dev/null 2>&1; then
  bao write pki/root/generate/internal common_name="Keyturn clients" key_type=ec \
    ttl=8760h >/dev/null
  # Lists are built when they are fetched, not at each revocation; answers by OCSP are never late.
  bao write pki/config/crl auto_rebuild=true expiry=24h ocsp_disable=false ocsp_expiry=1m \
    >/dev/null
  # What is over is forgotten a day later.
  bao write pki/config/auto-tidy enabled=true interval_duration=12h safety_buffer=24h \
    tidy_cert_store=true tidy_revoked_certs=true >/dev/null
fi

# One role per endpoint: `ou` is what its server tells its own certificates by. Names come from
# Keyturn and never from the request that is signed; max_ttl is the longest grant there may be.
bao write "pki/roles/$endpoint" \
  ou="$endpoint" \
  key_type=ec key_bits=256 client_flag=true server_flag=false ext_key_usage=ClientAuth \
  allow_any_name=true enforce_hostnames=false cn_validations=disabled \
  allowed_uri_sans="urn:keyturn:grant:*" allow_ip_sans=false \
  use_csr_common_name=false use_csr_sans=false \
  max_ttl=168h not_after_bound=ttl-limited >/dev/null

bao read -field=certificate pki/cert/ca
