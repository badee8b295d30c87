# Two buckets and the gate between them.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  prefix = "${var.name}-${var.environment}"
  final = var.final_bucket == null ? { name = module.final[0].name, arn = module.final[0].arn } : {
    name = var.final_bucket
    arn  = "arn:${data.aws_partition.current.partition}:s3:::${var.final_bucket}"
  }
  # Whose tokens stand in secrets that are made here, to be filled by hand.
  tokens = toset(concat(
    var.names_token ? ["names"] : [],
    var.issue_repository == null ? [] : ["issue"],
    var.webhook_url == null ? [] : ["webhook"],
  ))
}

module "drop" {
  source = "../../../terraform/modules/bucket"

  name                    = "${local.prefix}-drop-${data.aws_caller_identity.current.account_id}"
  kms_key_arn             = var.kms_key_arn
  noncurrent_version_days = var.noncurrent_version_days
  expire_days             = var.expire_days
}

module "final" {
  source = "../../../terraform/modules/bucket"
  count  = var.final_bucket == null ? 1 : 0

  name                    = "${local.prefix}-final-${data.aws_caller_identity.current.account_id}"
  kms_key_arn             = var.kms_key_arn
  noncurrent_version_days = var.noncurrent_version_days
}

# A form in a browser uploads from another origin.
resource "aws_s3_bucket_cors_configuration" "drop" {
  count = length(var.upload_origins) > 0 ? 1 : 0

  bucket = module.drop.name
  cors_rule {
    allowed_methods = ["POST", "PUT"]
    allowed_origins = var.upload_origins
    allowed_headers = ["*"]
    max_age_seconds = 3600
  }
}

module "function" {
  source = "../../../terraform/modules/function"

  name            = "${local.prefix}-gate"
  description     = "Gate: checks what is uploaded to ${module.drop.name}"
  package         = var.package
  architecture    = var.architecture
  memory_mb       = var.memory_mb
  timeout_seconds = var.timeout_seconds
  bucket          = { name = module.drop.name, arn = module.drop.arn }
  schedule        = { expression = var.sweep, description = "Gate: deal with uploads that an event did not bring, or that wait" }

  environment = merge(
    {
      GATE_DROP__BUCKET  = module.drop.name
      GATE_FINAL__BUCKET = local.final.name
    },
    var.names_url == null ? {} : { GATE_NAMES__URL = var.names_url },
    var.issue_repository == null ? {} : { GATE_ISSUE__REPOSITORY = var.issue_repository },
    var.mail == null ? {} : { GATE_MAIL__FROM = var.mail.from, GATE_MAIL__TO = join(",", var.mail.to) },
    var.webhook_url == null ? {} : { GATE_WEBHOOK__URL = var.webhook_url },
    { for token in local.tokens : "GATE_${upper(token)}__SECRET" => aws_secretsmanager_secret.token[token].arn },
    { for name, value in var.settings : "GATE_${name}" => value },
  )

  statements = {
    # Without it a missing key reads as 403.
    List = { actions = ["s3:ListBucket"], resources = [module.drop.arn, local.final.arn] }
    Read = { actions = ["s3:GetObject", "s3:GetObjectTagging"], resources = ["${module.drop.arn}/*"] }
    Final = {
      actions   = ["s3:GetObject", "s3:PutObject", "s3:PutObjectTagging"]
      resources = ["${local.final.arn}/*"]
    }
    Tokens = { actions = ["secretsmanager:GetSecretValue"], resources = [for secret in aws_secretsmanager_secret.token : secret.arn] }
    Mail = {
      actions   = ["ses:SendEmail"]
      resources = [for identity in try(var.mail.identities, []) : "arn:${data.aws_partition.current.partition}:ses:${var.region}:${data.aws_caller_identity.current.account_id}:identity/${identity}"]
    }
    FinalKey = {
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = var.final_kms_key_arn == null ? [] : [var.final_kms_key_arn]
    }
  }

  errors                   = { namespace = "Gate", metric = "${local.prefix}-errors" }
  alarm_topic_arn          = aws_sns_topic.alarms.arn
  enabled                  = var.enabled
  log_retention_days       = var.log_retention_days
  kms_key_arn              = var.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
}

resource "aws_secretsmanager_secret" "token" {
  for_each = local.tokens

  name        = "${local.prefix}-gate/${each.key}"
  description = "Gate: the token for the ${each.key}: JSON with token"
  kms_key_id  = var.kms_key_arn
}

resource "aws_sns_topic" "alarms" {
  name              = "${local.prefix}-gate-alarms"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_subscription" "email" {
  for_each = toset(var.alert_emails)

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_cloudwatch_metric_alarm" "errors" {
  alarm_name          = "${local.prefix}-gate-errors"
  alarm_description   = "An upload is not dealt with. The log says what and why, and what to do; the next event or the sweep goes on from there."
  namespace           = "Gate"
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
