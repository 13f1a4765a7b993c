# The OpenBao server, the same under `manage.py up`, in the tests and in docker-compose.yml.
# Paths are relative to the working folder, which holds policies/ (this folder), secrets/ and
# data/. The listener is a file of its own: it is all that differs from place to place.

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

# Who asked for what, with secrets replaced by HMACs. To change it, give it another name: a
# device that is edited in place keeps the server from starting.
audit "file" "to-file" {
  description = "every request and answer"
  options {
    file_path = "audit.log"
    mode      = "0600"
  }
}
