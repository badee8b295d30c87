# A bucket that nothing is removed from, and the function that fills it.

data "aws_caller_identity" "current" {}

locals {
  prefix = "${var.name}-${var.environment}"
}

module "bucket" {
  source = "../../../terraform/modules/bucket"

  name                    = "${local.prefix}-backup-${data.aws_caller_identity.current.account_id}"
  kms_key_arn             = var.kms_key_arn
  noncurrent_version_days = var.noncurrent_version_days
  lock_days               = var.lock_days
  cold_after_days         = var.cold_after_days
  # How far a run is that did not end. Nothing else expires: what was kept years ago may be of the newest backup.
  expire_folders = { "${var.prefix}/running/" = 35 }
  # A manifest is written once: of two runs the second makes none.
  written_once = ["${var.prefix}/backups/*"]
}

module "function" {
  source = "../../../terraform/modules/function"

  name            = "${local.prefix}-backup"
  description     = "Backup: every repository of a GitHub account"
  package         = var.package
  architecture    = var.architecture
  memory_mb       = var.memory_mb
  timeout_seconds = var.timeout_seconds
  schedule        = { expression = var.schedule, description = "Backup: make a backup, if one is due, and go on with one that is begun" }

  environment = {
    BACKUP_NAME    = local.prefix
    BACKUP_BUCKET  = module.bucket.name
    BACKUP_PREFIX  = var.prefix
    BACKUP_SECRET  = aws_secretsmanager_secret.github.arn
    BACKUP_LARGEST = var.largest
  }

  statements = {
    # Without it a missing key reads as 403.
    List  = { actions = ["s3:ListBucket"], resources = [module.bucket.arn] }
    Keep  = { actions = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], resources = ["${module.bucket.arn}/${var.prefix}/*"] }
    Login = { actions = ["secretsmanager:GetSecretValue"], resources = [aws_secretsmanager_secret.github.arn] }
  }

  errors                   = { namespace = "Backup", metric = "${local.prefix}-errors" }
  alarm_topic_arn          = aws_sns_topic.alarms.arn
  enabled                  = var.enabled
  log_retention_days       = var.log_retention_days
  kms_key_arn              = var.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
}

resource "aws_secretsmanager_secret" "github" {
  name        = "${local.prefix}-backup/github"
  description = "Backup: the token that reads the account, as {\"TOKEN_GITHUB\": \"...\"}"
  kms_key_id  = var.kms_key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${local.prefix}-backup-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${local.prefix}-backup-errors"
  alarm_description   = "Something of the account is not backed up. The log says what and why; it is tried again a day later."
  namespace           = "Backup"
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

# Also when the function does not run at all: then there is no age.
resource "aws_cloudwatch_metric_alarm" "age" {
  alarm_name          = "${local.prefix}-backup-age"
  alarm_description   = "The newest backup is older than ${var.oldest_hours} hours, or nothing says how old it is."
  namespace           = "Backup"
  metric_name         = "AgeHours"
  dimensions          = { name = local.prefix }
  statistic           = "Minimum"
  period              = 21600
  evaluation_periods  = 1
  threshold           = var.oldest_hours
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "breaching"
  actions_enabled     = var.enabled
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}
