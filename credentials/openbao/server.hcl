# The OpenBao server, the same under `manage.py up`, in the tests and in docker-compose.yml.
# Paths are relative to the working folder, which holds policies/ (this folder) and secrets/.
# Where it listens and where it keeps its audit log differs from place to place, and is said in
# a file of its own: compose.hcl, or one that `manage.py up` writes.

ui = false

# A revocation asked of a standby could answer "not found" while the token still lives.
disable_standby_reads = true

storage "raft" {
  path                   = "data"
  node_id                = "keyturn-1"
  performance_multiplier = 1
}

# Unseals itself from a 32-byte key that was generated on this host. Production names a
# KMS here instead: whoever reads this file and data/ reads every secret.
seal "static" {
  current_key_id = "keyturn-1"
  current_key    = "file://secrets/openbao-seal"
}
