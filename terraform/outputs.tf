output "buckets" {
  description = "The buckets of the two logs."
  value       = { for name, bucket in aws_s3_bucket.log : name => bucket.bucket }
}

output "functions" {
  description = "The functions, by stage."
  value       = { for stage, function in aws_lambda_function.stage : stage => function.function_name }
}

output "secrets" {
  description = "The secrets with the logins. Put JSON with username and password into those that were made here."
  value       = local.secret_arns
}

output "alarm_topic" {
  description = "The topic that alarms are sent to."
  value       = aws_sns_topic.alarms.arn
}
