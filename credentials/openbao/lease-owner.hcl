# The token that a credential's lease hangs on, so that its accessor takes all of it. It asks an
# engine for the credential, once, and is handed to nobody. Where an engine gives credentials on
# another path than creds/<role>, an operator adds that path here, and its leases to web and worker.

path "+/creds/+" {
  capabilities = ["read"]
}
