# Two functions and a bucket between them. A function reaches GitHub or a database in a VPC, but not both without a NAT gateway, which
# would cost more than all the rest: poll asks GitHub and writes its answers to the bucket, load applies them to the database.

data "aws_caller_identity" "current" {}

locals {
  prefix = "${var.name}-${var.environment}"

  # What each function does with the bucket, what invokes it, and what it knows.
  functions = {
    poll = {
      does     = "ask GitHub what has changed"
      reads    = ["state/*", "answers/*"]
      writes   = ["state/*", "answers/*"]
      follows  = null
      secret   = aws_secretsmanager_secret.github.arn
      vpc      = null
      retries  = 0 # The next run is near.
      memory   = var.memory_mb.poll
      timeout  = var.timeout_seconds.poll
      schedule = var.schedule
    }
    load = {
      does     = "apply GitHub's answers to the database"
      reads    = ["answers/*"]
      writes   = []
      follows  = "answers/"
      secret   = var.database_secret_arn
      vpc      = var.vpc
      retries  = 2
      memory   = var.memory_mb.load
      timeout  = var.timeout_seconds.load
      schedule = var.sweep
    }
  }

  # The database's address and login are load's alone, and GitHub's token is poll's.
  environment = {
    for name, of in local.functions : name => merge(
      {
        CONTRIBUTORS_NAME         = local.prefix
        CONTRIBUTORS_DOES         = name
        CONTRIBUTORS_BUCKET       = module.bucket.name
        CONTRIBUTORS_ORGANIZATION = var.organization
      },
      name == "poll" ? {
        CONTRIBUTORS_GITHUB__SECRET  = of.secret
        CONTRIBUTORS_GITHUB__RESERVE = tostring(var.reserve)
      } : {},
      name == "load" ? { CONTRIBUTORS_DATABASE__SECRET = of.secret } : {},
      name == "load" && var.database_url != null ? { CONTRIBUTORS_DATABASE__URL = var.database_url } : {},
    )
  }

  # A deployment makes a version of both functions, even if one stays as it was: a rollback goes back by one version.
  deployment = substr(sha256(jsonencode([local.environment, var.memory_mb, var.timeout_seconds, var.vpc, filesha256(var.package)])), 0, 12)
}

module "bucket" {
  source = "../../../terraform/modules/bucket"

  name                    = "${local.prefix}-contributors-${data.aws_caller_identity.current.account_id}"
  kms_key_arn             = var.kms_key_arn
  noncurrent_version_days = var.noncurrent_version_days
  # The state of the polls (cursors and ETags) never expires: without it everything would be asked for again.
  expire_folders = var.answers_days == null ? {} : { "answers/" = var.answers_days }
  # Of two polls at once, the second cannot replace what the first has written.
  written_once = ["answers/*"]
}

module "function" {
  source   = "../../../terraform/modules/function"
  for_each = local.functions

  name            = "${local.prefix}-contributors-${each.key}"
  description     = "Contributors: ${each.value.does}, deployment ${local.deployment}"
  package         = var.package
  architecture    = var.architecture
  memory_mb       = each.value.memory
  timeout_seconds = each.value.timeout
  environment     = local.environment[each.key]
  retries         = each.value.retries
  vpc             = each.value.vpc
  schedule        = { expression = each.value.schedule, description = "Contributors: ${each.value.does}" }
  bucket          = each.value.follows == null ? null : { name = module.bucket.name, arn = module.bucket.arn, prefix = each.value.follows }

  statements = {
    # Without it a missing key reads as 403.
    List  = { actions = ["s3:ListBucket"], resources = [module.bucket.arn] }
    Read  = { actions = ["s3:GetObject"], resources = [for keys in each.value.reads : "${module.bucket.arn}/${keys}"] }
    Write = { actions = ["s3:PutObject"], resources = [for keys in each.value.writes : "${module.bucket.arn}/${keys}"] }
    Login = { actions = ["secretsmanager:GetSecretValue"], resources = [each.value.secret] }
  }

  errors                   = { namespace = "Contributors", metric = "${local.prefix}-errors" }
  alarm_topic_arn          = aws_sns_topic.alarms.arn
  enabled                  = var.enabled
  log_retention_days       = var.log_retention_days
  kms_key_arn              = var.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
}

# Its value is put by hand, and is in no state.
resource "aws_secretsmanager_secret" "github" {
  name        = "${local.prefix}-contributors/github"
  description = "Contributors: the token that reads the organization, as {\"TOKEN_GITHUB\": \"...\"}"
  kms_key_id  = var.kms_key_arn
}
