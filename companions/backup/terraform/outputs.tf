output "bucket" {
  description = "Where backups are."
  value       = module.bucket.name
}

output "secret" {
  description = "The secret to put the token into."
  value       = aws_secretsmanager_secret.github.name
}

output "function" {
  description = "The function."
  value       = module.function.name
}
