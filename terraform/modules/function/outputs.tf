output "name" {
  description = "The function's name."
  value       = aws_lambda_function.this.function_name
}

output "resources" {
  description = "What it is made of, for tests."
  value = {
    function      = aws_lambda_function.this
    alias         = aws_lambda_alias.live
    invocation    = aws_lambda_function_event_invoke_config.this
    policy        = data.aws_iam_policy_document.this.json
    roles         = [aws_iam_role.this, aws_iam_role.schedule]
    schedule      = aws_scheduler_schedule.this
    notifications = aws_s3_bucket_notification.bucket
    permissions   = aws_lambda_permission.bucket
    errors        = aws_cloudwatch_log_metric_filter.this
    log           = aws_cloudwatch_log_group.this
    alarms        = aws_cloudwatch_metric_alarm.all
  }
}
