output "bucket" {
  description = "Where GitHub's answers and the state of the polls are."
  value       = module.bucket.name
}

output "secret" {
  description = "The secret to put GitHub's token into."
  value       = aws_secretsmanager_secret.github.name
}

output "functions" {
  description = "The functions, by what they do."
  value       = { for name, function in module.function : name => function.name }
}
