# What OpenBao does to itself on its first start, in this order. The root token it uses for
# it is revoked afterwards and never shown. Nothing here runs a second time: to change a
# running server, an operator applies the same requests by hand.
#
# The broker has a namespace of its own, because revoking by accessor can't be narrowed by a
# policy: inside its namespace it reaches no token but its own.

initialize "namespace" {
  request "create" {
    operation = "update"
    path      = "sys/namespaces/keyturn"
    data      = {}
  }
}

# Where upstream secrets are kept. Version 2 isn't usable in the instant after it's mounted, so
# this comes early and what configures it comes late.
initialize "kv" {
  request "mount" {
    operation = "update"
    path      = "keyturn/sys/mounts/kv"
    data = {
      type    = "kv"
      options = { version = "2" }
    }
  }
}

# Seals what PostgreSQL keeps, the secrets of second factors and of webhooks, and signs JWTs. No key
# ever leaves OpenBao.
initialize "transit" {
  request "mount" {
    operation = "update"
    path      = "keyturn/sys/mounts/transit"
    data      = { type = "transit" }
  }
  # Signs JWTs. P-256 and not Ed25519, as clouds that federate don't read that one.
  request "credentials" {
    operation = "update"
    path      = "keyturn/transit/keys/credentials"
    data      = { type = "ecdsa-p256", auto_rotate_period = "2160h" }
  }
  request "second-factor" {
    operation = "update"
    path      = "keyturn/transit/keys/second-factor"
    data      = { type = "aes256-gcm96" }
  }
  request "webhooks" {
    operation = "update"
    path      = "keyturn/transit/keys/webhooks"
    data      = { type = "aes256-gcm96" }
  }
}

# Where client certificates come from. Its CA and roles are the operator's to make:
# examples/mtls/set-up.sh. Certificates live for hours, the CA for a year.
initialize "pki" {
  request "mount" {
    operation = "update"
    path      = "keyturn/sys/mounts/pki"
    data = {
      type   = "pki"
      config = { max_lease_ttl = "8760h" }
    }
  }
}

# Makes users at databases. Its connections and roles are the operators' to say: see
# examples/database.
initialize "database" {
  request "mount" {
    operation = "update"
    path      = "keyturn/sys/mounts/database"
    data      = { type = "database" }
  }
}

# Ties an entry of the audit log to the request that a person made in the portal.
initialize "auditing" {
  request "request-id-in-clear" {
    operation = "update"
    path      = "sys/config/auditing/request-headers/X-Broker-Request-Id"
    data      = { hmac = false }
  }
}

initialize "policies" {
  request "web" {
    operation = "update"
    path      = "keyturn/sys/policies/acl/web"
    data = {
      policy = { eval_type = "string", eval_source = "file", path = "policies/web.hcl" }
    }
  }
  request "worker" {
    operation = "update"
    path      = "keyturn/sys/policies/acl/worker"
    data = {
      policy = { eval_type = "string", eval_source = "file", path = "policies/worker.hcl" }
    }
  }
  request "gateway" {
    operation = "update"
    path      = "keyturn/sys/policies/acl/gateway"
    data = {
      policy = { eval_type = "string", eval_source = "file", path = "policies/gateway.hcl" }
    }
  }
  request "gateway-token" {
    operation = "update"
    path      = "keyturn/sys/policies/acl/gateway-token"
    data = {
      policy = { eval_type = "string", eval_source = "file", path = "policies/gateway-token.hcl" }
    }
  }
  request "lease-owner" {
    operation = "update"
    path      = "keyturn/sys/policies/acl/lease-owner"
    data = {
      policy = { eval_type = "string", eval_source = "file", path = "policies/lease-owner.hcl" }
    }
  }
}

# One login per kind of process. The secret ids are generated on the host; each process gets
# the file with its own.
initialize "logins" {
  request "mount" {
    operation = "update"
    path      = "keyturn/sys/auth/approle"
    data      = { type = "approle" }
  }

  request "web" {
    operation = "update"
    path      = "keyturn/auth/approle/role/web"
    data = {
      # A token hands on only policies that it has: the other two are there to be handed on.
      token_policies          = ["web", "gateway-token", "lease-owner"]
      token_no_default_policy = true
      token_period            = "20m"
      token_type              = "service"
      secret_id_ttl           = "0"
      secret_id_num_uses      = 0
    }
  }
  request "web-role-id" {
    operation = "update"
    path      = "keyturn/auth/approle/role/web/role-id"
    data      = { role_id = "web" }
  }

  request "worker" {
    operation = "update"
    path      = "keyturn/auth/approle/role/worker"
    data = {
      token_policies          = ["worker"]
      token_no_default_policy = true
      token_period            = "20m"
      token_type              = "service"
      secret_id_ttl           = "0"
      secret_id_num_uses      = 0
    }
  }
  request "worker-role-id" {
    operation = "update"
    path      = "keyturn/auth/approle/role/worker/role-id"
    data      = { role_id = "worker" }
  }

  request "gateway" {
    operation = "update"
    path      = "keyturn/auth/approle/role/gateway"
    data = {
      token_policies          = ["gateway"]
      token_no_default_policy = true
      token_period            = "20m"
      token_type              = "service"
      secret_id_ttl           = "0"
      secret_id_num_uses      = 0
    }
  }
  request "gateway-role-id" {
    operation = "update"
    path      = "keyturn/auth/approle/role/gateway/role-id"
    data      = { role_id = "gateway" }
  }
}

# A writer states which version it replaces (options.cas), so that two rotations can't overwrite
# one another.
initialize "kv-config" {
  request "require-cas" {
    operation = "update"
    path      = "keyturn/kv/config"
    data = {
      cas_required = true
      max_versions = 10
    }
  }
}

# Last: once these logins work, everything above is in place.
initialize "secret-ids" {
  request "web" {
    operation = "update"
    path      = "keyturn/auth/approle/role/web/custom-secret-id"
    data = {
      secret_id = { eval_type = "string", eval_source = "file", path = "secrets/vault-web" }
    }
  }

  request "worker" {
    operation = "update"
    path      = "keyturn/auth/approle/role/worker/custom-secret-id"
    data = {
      secret_id = { eval_type = "string", eval_source = "file", path = "secrets/vault-worker" }
    }
  }

  request "gateway" {
    operation = "update"
    path      = "keyturn/auth/approle/role/gateway/custom-secret-id"
    data = {
      secret_id = { eval_type = "string", eval_source = "file", path = "secrets/vault-gateway" }
    }
  }
}
