# What is watched, and who hears of it.

resource "aws_sns_topic" "alarms" {
  name              = "${local.prefix}-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

locals {
  of_pipeline = { pipeline = local.prefix }

  alarms = {
    errors = {
      description = "A stage failed. Its log says what and why, and what to do; the next run goes on from there."
      namespace   = "Blackwater", metric = "${local.prefix}-errors", dimensions = {}
      statistic   = "Sum", period = 300, threshold = 1, comparison = "GreaterThanOrEqualToThreshold", missing = "notBreaching"
    }
    silence = {
      description = "Extract has not run to its end for ${var.silence_minutes} minutes."
      namespace   = "Blackwater", metric = "ExtractRuns", dimensions = local.of_pipeline
      statistic   = "Sum", period = var.silence_minutes * 60, threshold = 1, comparison = "LessThanThreshold", missing = "breaching"
    }
    lag = {
      description = "A batch is more than 15 minutes old, and the warehouse lacks it."
      namespace   = "Blackwater", metric = "Lag", dimensions = local.of_pipeline
      statistic   = "Maximum", period = 300, threshold = 900, comparison = "GreaterThanThreshold", missing = "ignore"
    }
    retained-wal = {
      description = "The source keeps more than ${var.retained_wal_gb} GB of its write-ahead log for the replication slot: a transaction stays open there, or runs fail. docs/operations.md says what to do."
      namespace   = "Blackwater", metric = "RetainedWal", dimensions = local.of_pipeline
      statistic   = "Maximum", period = 900, threshold = var.retained_wal_gb * 1e9, comparison = "GreaterThanThreshold", missing = "ignore"
    }
    quarantine = {
      description = "Rows are in quarantine: blackwater quarantine list says why."
      namespace   = "Blackwater", metric = "RowsInQuarantine", dimensions = local.of_pipeline
      statistic   = "Maximum", period = 3600, threshold = 1, comparison = "GreaterThanOrEqualToThreshold", missing = "ignore"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "all" {
  for_each = local.alarms

  alarm_name          = "${local.prefix}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
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
