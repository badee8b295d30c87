output "buckets" {
  description = "Where files are uploaded, and where they are let in to."
  value       = { drop = module.drop.name, final = local.final.name }
}

output "secrets" {
  description = "The secrets to put {\"token\": \"…\"} into."
  value       = { for token, secret in aws_secretsmanager_secret.token : token => secret.name }
}

output "function" {
  description = "The function."
  value       = module.function.name
}
