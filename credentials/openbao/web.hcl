# Portal and REST API: mints gateway tokens and leases under a grant, raises their TTL, tells whose one is,
# and stores upstream secrets that people type in. It can't read those back. It seals and unseals
# the secrets of second factors, seals those of webhooks, and signs JWTs.

# Only what a grant needs may be said, and only so: one of two policies as a string (a list is
# compared with these values as a whole), an end as a string that starts with 1 to 9, as 0
# would mean none. Not on a token role: OpenBao forgets a token's own explicit_max_ttl when it
# renews one that was made on a role, and takes the role's.
path "auth/token/create-orphan" {
  capabilities = ["update"]
  allowed_parameters = {
    "policies"          = ["gateway-token", "lease-owner"]
    "no_default_policy" = [true]
    "ttl"               = ["60s"]
    "explicit_max_ttl"  = ["1*", "2*", "3*", "4*", "5*", "6*", "7*", "8*", "9*"]
    "meta"              = []
    "display_name"      = []
  }
  required_parameters = ["policies", "no_default_policy", "ttl", "explicit_max_ttl", "meta"]
}

# A secret that its holder asked to have wrapped.
path "sys/wrapping/wrap" {
  capabilities        = ["update"]
  min_wrapping_ttl    = "1s"
  max_wrapping_ttl    = "300s"
}

# For a holder who can't reach Vault, and has the token that says that it's theirs.
path "sys/wrapping/unwrap" {
  capabilities        = ["update"]
  allowed_parameters  = { "token" = [] }
  required_parameters = ["token"]
}

path "auth/token/renew-accessor" {
  capabilities = ["update"]
}

# Lets a lease that is on record live to the end of its grant.
path "sys/leases/renew/+/creds/*" {
  capabilities        = ["update"]
  allowed_parameters  = { "increment" = [] }
  required_parameters = ["increment"]
}

# Whose a token is that somebody asks about in full, for introspection.
path "auth/token/lookup" {
  capabilities        = ["update"]
  allowed_parameters  = { "token" = [] }
  required_parameters = ["token"]
}

path "kv/data/upstream/*" {
  capabilities = ["create", "update"]
}

# The version that a write replaces.
path "kv/metadata/upstream/*" {
  capabilities = ["read"]
}

# Static keys that may be handed out, which are other secrets than those of the gateway.
path "kv/data/handed-out/*" {
  capabilities = ["create", "read", "update"]
}

path "kv/metadata/handed-out/*" {
  capabilities = ["read"]
}

# Client certificates: named after a credential, for a grant, until a moment that the role bounds
# (not_after_bound). The key is never sent.
path "pki/sign/+" {
  capabilities = ["update"]
  allowed_parameters = {
    "csr"                  = []
    "common_name"          = ["kt-*"]
    "uri_sans"             = ["urn:keyturn:grant:*"]
    "not_after"            = ["20*"]
    "exclude_cn_from_sans" = [true]
  }
  required_parameters = ["csr", "common_name", "uri_sans", "not_after"]
}

# What rotators manage keys at their providers with.
path "kv/data/rotators/*" {
  capabilities = ["create", "update"]
}

path "kv/metadata/rotators/*" {
  capabilities = ["read"]
}

# Second factors. One secret a call, and always with the person that it is bound to. Without
# `create` no other key can be made by naming it.
path "transit/encrypt/second-factor" {
  capabilities        = ["update"]
  allowed_parameters  = { "plaintext" = [], "associated_data" = [] }
  required_parameters = ["plaintext", "associated_data"]
}

path "transit/decrypt/second-factor" {
  capabilities        = ["update"]
  allowed_parameters  = { "ciphertext" = [], "associated_data" = [] }
  required_parameters = ["ciphertext", "associated_data"]
}

# Signing secrets of webhooks, each with the webhook that it is bound to. What signs by them is the
# worker's.
path "transit/encrypt/webhooks" {
  capabilities        = ["update"]
  allowed_parameters  = { "plaintext" = [], "associated_data" = [] }
  required_parameters = ["plaintext", "associated_data"]
}

# JWTs. By a version that it names, as a new one must be published before it signs.
path "transit/sign/credentials" {
  capabilities        = ["update"]
  allowed_parameters  = { "input" = [], "key_version" = [], "marshaling_algorithm" = ["jws"] }
  required_parameters = ["input", "key_version", "marshaling_algorithm"]
}

# Its public halves, to publish them.
path "transit/keys/credentials" {
  capabilities = ["read"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
