# The functions: each with a role that can do what its stage does, and no more.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  prefix = "${var.name}-${var.environment}"

  # What each stage may do with which objects. Without s3:ListBucket a missing key reads as 403.
  stages = {
    extract = {
      buckets = ["ingestion", "processed"]
      reads   = { ingestion = ["batches/*"], processed = ["hints/*"] }
      writes  = { ingestion = ["batches/*", "data/*"] }
      secrets = ["source"]
      retries = 0
      memory  = var.memory_mb.extract
    }
    transform = {
      buckets = ["ingestion", "processed"]
      reads   = { ingestion = ["batches/*", "data/*"], processed = ["batches/*", "hints/*"] }
      writes  = { processed = ["batches/*", "data/*"] }
      secrets = []
      retries = 2
      memory  = var.memory_mb.transform
    }
    load = {
      buckets = ["processed"]
      reads   = { processed = ["batches/*", "data/*", "hints/*"] }
      writes  = { processed = ["hints/*"] }
      secrets = ["warehouse"]
      retries = 2
      memory  = var.memory_mb.load
    }
  }

  # A deployment makes a version of every function, also of one that stays as it was: a rollback goes back by one.
  deployment = substr(sha256(jsonencode([
    local.environment, var.memory_mb, var.timeout_seconds, var.disk_mb, var.vpc,
    [for stage in keys(local.stages) : filesha256("${var.packages}/${stage}.zip")],
  ])), 0, 12)

  # A stage that has no business with a database knows its address alone.
  environment = {
    for stage, of in local.stages : stage => merge(
      {
        BLACKWATER_NAME                = local.prefix
        BLACKWATER_MODEL               = "/var/task/model"
        BLACKWATER_SOURCE__URL         = var.source_database.url
        BLACKWATER_SOURCE__SCHEMA      = var.source_database.schema
        BLACKWATER_WAREHOUSE__URL      = var.warehouse_database.url
        BLACKWATER_WAREHOUSE__SCHEMA   = var.warehouse_database.schema
        BLACKWATER_INGESTION__BUCKET   = aws_s3_bucket.log["ingestion"].bucket
        BLACKWATER_PROCESSED__BUCKET   = aws_s3_bucket.log["processed"].bucket
        BLACKWATER_LIMITS__MEMORY      = "${max(128, floor(of.memory / 2))}MB"
        BLACKWATER_LIMITS__BATCH_BYTES = "${var.batch_mb}MB"
        TMPDIR                         = "/tmp"
      },
      length(var.source_database.exclude) > 0 ? { BLACKWATER_SOURCE__EXCLUDE = join(",", var.source_database.exclude) } : {},
      length(var.warehouse_database.readers) > 0 ? { BLACKWATER_WAREHOUSE__READERS = join(",", var.warehouse_database.readers) } : {},
      { for database in of.secrets : "BLACKWATER_${upper(database)}__SECRET" => local.secret_arns[database] },
    )
  }
}

resource "aws_lambda_function" "stage" {
  for_each = local.stages

  function_name    = "${local.prefix}-${each.key}"
  description      = "Blackwater: ${each.key}, deployment ${local.deployment}"
  role             = aws_iam_role.stage[each.key].arn
  filename         = "${var.packages}/${each.key}.zip"
  source_code_hash = filebase64sha256("${var.packages}/${each.key}.zip")
  runtime          = "provided.al2023"
  handler          = "bootstrap"
  architectures    = [var.architecture]
  memory_size      = each.value.memory
  timeout          = var.timeout_seconds
  publish          = true

  ephemeral_storage {
    size = var.disk_mb
  }

  environment {
    variables = local.environment[each.key]
  }

  logging_config {
    log_format = "Text" # The functions write JSON themselves; CloudWatch's own would wrap it.
    log_group  = aws_cloudwatch_log_group.stage[each.key].name
  }

  dynamic "vpc_config" {
    for_each = var.vpc == null ? [] : [var.vpc]
    content {
      subnet_ids         = vpc_config.value.subnet_ids
      security_group_ids = vpc_config.value.security_group_ids
    }
  }

  depends_on = [aws_iam_role_policy.stage, aws_iam_role_policy_attachment.vpc]
}

# What schedules and buckets invoke: it moves with a deployment, and back with a rollback.
resource "aws_lambda_alias" "live" {
  for_each = local.stages

  name             = "live"
  function_name    = aws_lambda_function.stage[each.key].function_name
  function_version = aws_lambda_function.stage[each.key].version
}

resource "aws_lambda_function_event_invoke_config" "stage" {
  for_each = local.stages

  function_name                = aws_lambda_function.stage[each.key].function_name
  qualifier                    = aws_lambda_alias.live[each.key].name
  maximum_retry_attempts       = each.value.retries
  maximum_event_age_in_seconds = 3600

  destination_config {
    on_failure {
      destination = aws_sqs_queue.failed[each.key].arn
    }
  }
}

# The events that a function failed with, for a look at them. The next run does what they asked for.
resource "aws_sqs_queue" "failed" {
  for_each = local.stages

  name                      = "${local.prefix}-${each.key}-failed"
  message_retention_seconds = 86400
  sqs_managed_sse_enabled   = var.kms_key_arn == null ? true : null
  kms_master_key_id         = var.kms_key_arn
}

resource "aws_iam_role" "stage" {
  for_each = local.stages

  name                 = "${local.prefix}-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.assume["lambda"].json
  permissions_boundary = var.permissions_boundary_arn
}

data "aws_iam_policy_document" "assume" {
  for_each = toset(["lambda", "scheduler", "quicksight"])

  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["${each.key}.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_iam_role_policy" "stage" {
  for_each = local.stages

  name   = "stage"
  role   = aws_iam_role.stage[each.key].id
  policy = data.aws_iam_policy_document.stage[each.key].json
}

data "aws_iam_policy_document" "stage" {
  for_each = local.stages

  statement {
    sid       = "Log"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.stage[each.key].arn}:*"]
  }

  statement {
    sid       = "List"
    actions   = ["s3:ListBucket"]
    resources = [for bucket in each.value.buckets : aws_s3_bucket.log[bucket].arn]
  }

  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = flatten([for bucket, keys in each.value.reads : [for key in keys : "${aws_s3_bucket.log[bucket].arn}/${key}"]])
  }

  statement {
    sid       = "Write"
    actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
    resources = flatten([for bucket, keys in each.value.writes : [for key in keys : "${aws_s3_bucket.log[bucket].arn}/${key}"]])
  }

  statement {
    sid       = "Failed"
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.failed[each.key].arn]
  }

  dynamic "statement" {
    for_each = length(each.value.secrets) > 0 ? [each.value.secrets] : []
    content {
      sid       = "Login"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [for database in statement.value : local.secret_arns[database]]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

# Network interfaces have no ARN before they are made: AWS keeps this policy.
resource "aws_iam_role_policy_attachment" "vpc" {
  for_each = var.vpc == null ? {} : local.stages

  role       = aws_iam_role.stage[each.key].name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSLambdaVPCAccessExecutionRole"
}

# The logins. Their values are put by hand, and are in no state.
resource "aws_secretsmanager_secret" "login" {
  for_each = toset([
    for database, arn in { source = var.source_database.secret_arn, warehouse = var.warehouse_database.secret_arn } : database if arn == null
  ])

  name        = "${local.prefix}/${each.key}"
  description = "Blackwater: who logs in to the ${each.key}: JSON with username and password"
  kms_key_id  = var.kms_key_arn
}

locals {
  secret_arns = {
    source    = var.source_database.secret_arn == null ? aws_secretsmanager_secret.login["source"].arn : var.source_database.secret_arn
    warehouse = var.warehouse_database.secret_arn == null ? aws_secretsmanager_secret.login["warehouse"].arn : var.warehouse_database.secret_arn
  }
}
