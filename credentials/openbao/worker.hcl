# Sweep, revoke, prove, reconcile, rotate. It mints nothing that opens the gateway.

path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}

path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# OpenBao guards the list of accessors with sudo. In the broker's namespace it's the list of
# the broker's own tokens.
path "auth/token/accessors/" {
  capabilities = ["list", "sudo"]
}

# Leases that OpenBao gave up revoking: it asks for sudo to tell.
path "sys/leases" {
  capabilities = ["read", "sudo"]
}

# Leases: is it there, which are there, end it.
path "sys/leases/lookup" {
  capabilities        = ["update"]
  allowed_parameters  = { "lease_id" = [] }
  required_parameters = ["lease_id"]
}

path "sys/leases/lookup/+/creds/*" {
  capabilities = ["list", "sudo"]
}

path "sys/leases/revoke/+/creds/*" {
  capabilities       = ["update"]
  allowed_parameters = { "sync" = [] }
}

# The login with which a target is asked who exists there. No other that OpenBao rotates.
path "+/static-creds/keyturn-monitor*" {
  capabilities = ["read"]
}

# Rotation: write the new one, try both at the endpoint, destroy the old one, say so beside it.
path "kv/data/upstream/*" {
  capabilities = ["create", "read", "update"]
}

path "kv/destroy/upstream/*" {
  capabilities = ["update"]
}

path "kv/metadata/upstream/*" {
  capabilities = ["read", "patch"]
}

path "kv/data/handed-out/*" {
  capabilities = ["create", "read", "update"]
}

path "kv/destroy/handed-out/*" {
  capabilities = ["update"]
}

path "kv/metadata/handed-out/*" {
  capabilities = ["read", "patch"]
}

path "kv/data/rotators/*" {
  capabilities = ["read"]
}

# Signs what it sends to webhooks.
path "transit/decrypt/webhooks" {
  capabilities        = ["update"]
  allowed_parameters  = { "ciphertext" = [], "associated_data" = [] }
  required_parameters = ["ciphertext", "associated_data"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Client certificates. What it reads of them beside this, any CA tells to anybody.
path "pki/certs/detailed" {
  capabilities = ["list"]
}

path "pki/certs/revoked" {
  capabilities = ["list"]
}

path "pki/revoke" {
  capabilities        = ["update"]
  allowed_parameters  = { "serial_number" = [] }
  required_parameters = ["serial_number"]
}
