# What is watched of it.

resource "aws_cloudwatch_log_group" "this" {
  name              = "/aws/lambda/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  name           = "${var.name}-errors"
  log_group_name = aws_cloudwatch_log_group.this.name
  pattern        = "{ $.level = \"ERROR\" }"

  metric_transformation {
    namespace = var.errors.namespace
    name      = var.errors.metric
    value     = "1"
  }
}

locals {
  alarms = {
    throttles = {
      description = "Lambda does not let ${var.name} run as often as it is asked to."
      metric      = "Throttles", statistic = "Sum", threshold = 1, comparison = "GreaterThanOrEqualToThreshold"
    }
    duration = {
      description = "A run of ${var.name} took more than four fifths of the time that it may take."
      metric      = "Duration", statistic = "Maximum", threshold = var.timeout_seconds * 800, comparison = "GreaterThanThreshold"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "all" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Lambda"
  metric_name         = each.value.metric
  dimensions          = { FunctionName = var.name }
  statistic           = each.value.statistic
  period              = 300
  evaluation_periods  = 1
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = "notBreaching"
  actions_enabled     = var.enabled
  alarm_actions       = [var.alarm_topic_arn]
  ok_actions          = [var.alarm_topic_arn]
}
