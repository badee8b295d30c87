# What is watched, and who hears of it.

resource "aws_sns_topic" "alarms" {
  name              = "${local.prefix}-contributors-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  # An age that nobody reports raises its alarm too: then the function does not run at all.
  alarms = {
    errors = {
      description = "A poll or a load failed. The log says what and why, and what to do; the next run goes on from there."
      metric      = "${local.prefix}-errors", dimensions = {}
      statistic   = "Sum", period = 300, threshold = 1, comparison = "GreaterThanOrEqualToThreshold", missing = "notBreaching"
    }
    oldest = {
      description = "A repository was last polled more than ${var.oldest_minutes} minutes ago, or no poll has finished in that time. The log says why; leave out a repository that cannot be read."
      metric      = "OldestPollSeconds", dimensions = { name = local.prefix }
      statistic   = "Maximum", period = var.oldest_minutes * 60, threshold = var.oldest_minutes * 60, comparison = "GreaterThanThreshold", missing = "breaching"
    }
    budget = {
      description = "GitHub has left no more than ${var.reserve} requests for six hours, so polls stop. Give contributors a token of its own, or lower the reserve."
      metric      = "Remaining", dimensions = { name = local.prefix }
      statistic   = "Maximum", period = 21600, threshold = var.reserve, comparison = "LessThanOrEqualToThreshold", missing = "ignore"
    }
    behind = {
      description = "The newest poll in the database is more than ${var.behind_minutes} minutes old, or no load has finished in that time."
      metric      = "NewestPollSeconds", dimensions = { name = local.prefix }
      statistic   = "Maximum", period = var.behind_minutes * 60, threshold = var.behind_minutes * 60, comparison = "GreaterThanThreshold", missing = "breaching"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "all" {
  for_each = local.alarms

  alarm_name          = "${local.prefix}-contributors-${each.key}"
  alarm_description   = each.value.description
  namespace           = "Contributors"
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = 1
  threshold           = each.value.threshold
  comparison_operator = each.value.comparison
  treat_missing_data  = each.value.missing
  actions_enabled     = var.enabled
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}
