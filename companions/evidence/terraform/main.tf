# A bucket, and the function that fills it every month.

data "aws_caller_identity" "current" {}

locals {
  prefix = "${var.name}-${var.environment}"
  logins = toset(concat(["bitbucket"], var.drive ? ["drive"] : [], var.slack ? ["slack"] : []))
}

module "bucket" {
  source = "../../../terraform/modules/bucket"

  name                    = "${local.prefix}-evidence-${data.aws_caller_identity.current.account_id}"
  kms_key_arn             = var.kms_key_arn
  noncurrent_version_days = var.noncurrent_version_days
  expire_days             = var.expire_days
  # A manifest is written once: of two runs the second takes the next number.
  written_once = ["evidence/*/runs/*"]
}

module "function" {
  source = "../../../terraform/modules/function"

  name            = "${local.prefix}-evidence"
  description     = "Evidence: a month's work of each person"
  package         = var.package
  architecture    = var.architecture
  memory_mb       = var.memory_mb
  timeout_seconds = var.timeout_seconds
  schedule        = { expression = var.schedule, description = "Evidence: deliver the last month, if it is not delivered" }

  environment = merge(
    { EVIDENCE_STORE__BUCKET = module.bucket.name },
    { for login in local.logins : "EVIDENCE_${upper(login)}__SECRET" => aws_secretsmanager_secret.login[login].arn },
  )

  statements = {
    # Without it a missing key reads as 403.
    List   = { actions = ["s3:ListBucket"], resources = [module.bucket.arn] }
    Keep   = { actions = ["s3:GetObject", "s3:PutObject"], resources = ["${module.bucket.arn}/*"] }
    Logins = { actions = ["secretsmanager:GetSecretValue"], resources = [for secret in aws_secretsmanager_secret.login : secret.arn] }
  }

  errors                   = { namespace = "Evidence", metric = "${local.prefix}-errors" }
  alarm_topic_arn          = aws_sns_topic.alarms.arn
  enabled                  = var.enabled
  log_retention_days       = var.log_retention_days
  kms_key_arn              = var.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
}

resource "aws_secretsmanager_secret" "login" {
  for_each = local.logins

  name        = "${local.prefix}-evidence/${each.key}"
  description = "Evidence: who logs in to ${each.key}, as evidence.toml says"
  kms_key_id  = var.kms_key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${local.prefix}-evidence-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${local.prefix}-evidence-errors"
  alarm_description   = "Something is not delivered, or from the third on the last month is not complete. The log says what and why; the next run goes on from there."
  namespace           = "Evidence"
  metric_name         = "${local.prefix}-errors"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  actions_enabled     = var.enabled
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}
