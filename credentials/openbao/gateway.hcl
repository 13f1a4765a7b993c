# The enforcement point: asks whether a token is alive and what it was minted for, and reads
# the upstream secret that it puts in its place.

path "auth/token/lookup" {
  capabilities = ["update"]
}

path "kv/data/upstream/*" {
  capabilities = ["read"]
}

# The public halves of the key that signs JWTs.
path "transit/keys/credentials" {
  capabilities = ["read"]
}

path "auth/token/lookup-self" {
  capabilities = ["read"]
}

path "auth/token/renew-self" {
  capabilities = ["update"]
}
