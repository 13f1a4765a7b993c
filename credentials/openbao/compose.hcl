# Where OpenBao listens and keeps its audit log in docker-compose.yml. Data is where BAO_RAFT_PATH
# says. Plain HTTP crosses one host's internal network only; across hosts, give it a certificate
# here, and https in VAULT_ADDR.

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}

api_addr     = "http://openbao:8200"
cluster_addr = "https://openbao:8201"

# Who asked for what, with secrets replaced by HMACs. To change it, give it another name: a
# device that is edited in place keeps the server from starting.
audit "file" "to-file" {
  description = "every request and answer"
  options {
    file_path = "/openbao/logs/audit.log"
    mode      = "0600"
  }
}
