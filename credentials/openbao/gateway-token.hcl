# What a checked-out gateway token opens in OpenBao: nothing, not even its own lookup or
# renewal. The gateway alone takes it. (A deny on "*" would say so more loudly, but OpenBao
# counts it as knowing every mount and then lists them at sys/internal/ui/mounts.)

path "nothing" {
  capabilities = ["deny"]
}
