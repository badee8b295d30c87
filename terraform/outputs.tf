output "buckets" {
  description = "The buckets of the two logs."
  value       = { for name, bucket in module.bucket : name => bucket.name }
}

output "functions" {
  description = "The functions, by stage."
  value       = { for stage, function in module.function : stage => function.name }
}

output "secrets" {
  description = "The secrets with the logins. Put JSON with username and password into those that were made here."
  value       = local.secret_arns
}

output "alarm_topic" {
  description = "The topic that alarms are sent to."
  value       = aws_sns_topic.alarms.arn
}
