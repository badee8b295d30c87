output "bucket" {
  description = "Where zips and manifests are."
  value       = module.bucket.name
}

output "secrets" {
  description = "The secrets to put logins into, as evidence.toml says."
  value       = { for login, secret in aws_secretsmanager_secret.login : login => secret.name }
}

output "function" {
  description = "The function."
  value       = module.function.name
}
