# Portal and REST API: mints gateway tokens under a grant, raises their TTL, and stores
# upstream secrets that people type in. It can't read those back.

# Only what a grant needs may be said. An empty list allows any value: OpenBao compares a
# list as a whole, so values aren't narrowed here, the token role narrows them.
path "auth/token/create/gateway-token" {
  capabilities = ["update"]
  allowed_parameters = {
    "policies"         = []
    "ttl"              = []
    "explicit_max_ttl" = []
    "meta"             = []
    "display_name"     = []
  }
  # Without an end of its own a token could be renewed for as long as the server allows.
  denied_parameters = {
    "explicit_max_ttl" = ["", "0", "0s", 0]
  }
  required_parameters = ["ttl", "explicit_max_ttl", "meta"]
}

path "auth/token/renew-accessor" {
  capabilities = ["update"]
}

path "kv/data/upstream/*" {
  capabilities = ["create", "update"]
}

# The version that a write replaces.
path "kv/metadata/upstream/*" {
  capabilities = ["read"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
