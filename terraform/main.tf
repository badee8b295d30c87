# The functions: each with a role that can do what its stage does, and no more.

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  prefix = "${var.name}-${var.environment}"

  # What each stage may do with which objects, and which bucket's manifests it follows.
  stages = {
    extract = {
      buckets  = ["ingestion", "processed"]
      reads    = { ingestion = ["batches/*"], processed = ["hints/*"] }
      writes   = { ingestion = ["batches/*", "data/*"] }
      follows  = null
      secrets  = ["source"]
      retries  = 0 # The next run is near.
      memory   = var.memory_mb.extract
      schedule = { expression = var.schedule, description = "Blackwater: look for changes" }
    }
    transform = {
      buckets  = ["ingestion", "processed"]
      reads    = { ingestion = ["batches/*", "data/*"], processed = ["batches/*", "hints/*"] }
      writes   = { processed = ["batches/*", "data/*"] }
      follows  = "ingestion"
      secrets  = []
      retries  = 2
      memory   = var.memory_mb.transform
      schedule = { expression = var.sweep, description = "Blackwater: do what an event did not bring" }
    }
    load = {
      buckets  = ["processed"]
      reads    = { processed = ["batches/*", "data/*", "hints/*"] }
      writes   = { processed = ["hints/*"] }
      follows  = "processed"
      secrets  = ["warehouse"]
      retries  = 2
      memory   = var.memory_mb.load
      schedule = { expression = var.sweep, description = "Blackwater: do what an event did not bring" }
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
        BLACKWATER_SOURCE__CHANGES     = var.change_detection
        BLACKWATER_WAREHOUSE__URL      = var.warehouse_database.url
        BLACKWATER_WAREHOUSE__SCHEMA   = var.warehouse_database.schema
        BLACKWATER_INGESTION__BUCKET   = module.bucket["ingestion"].name
        BLACKWATER_PROCESSED__BUCKET   = module.bucket["processed"].name
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

module "function" {
  source   = "./modules/function"
  for_each = local.stages

  name            = "${local.prefix}-${each.key}"
  description     = "Blackwater: ${each.key}, deployment ${local.deployment}"
  package         = "${var.packages}/${each.key}.zip"
  architecture    = var.architecture
  memory_mb       = each.value.memory
  timeout_seconds = var.timeout_seconds
  disk_mb         = var.disk_mb
  environment     = local.environment[each.key]
  retries         = each.value.retries
  schedule        = each.value.schedule
  bucket = each.value.follows == null ? null : {
    name   = module.bucket[each.value.follows].name
    arn    = module.bucket[each.value.follows].arn
    prefix = "batches/"
  }

  statements = {
    # Without it a missing key reads as 403.
    List = {
      actions   = ["s3:ListBucket"]
      resources = [for bucket in each.value.buckets : module.bucket[bucket].arn]
    }
    Read = {
      actions   = ["s3:GetObject"]
      resources = flatten([for bucket, keys in each.value.reads : [for key in keys : "${module.bucket[bucket].arn}/${key}"]])
    }
    Write = {
      actions   = ["s3:PutObject", "s3:AbortMultipartUpload"]
      resources = flatten([for bucket, keys in each.value.writes : [for key in keys : "${module.bucket[bucket].arn}/${key}"]])
    }
    Login = {
      actions   = ["secretsmanager:GetSecretValue"]
      resources = [for database in each.value.secrets : local.secret_arns[database]]
    }
  }

  errors                   = { namespace = "Blackwater", metric = "${local.prefix}-errors" }
  alarm_topic_arn          = aws_sns_topic.alarms.arn
  enabled                  = var.enabled
  log_retention_days       = var.log_retention_days
  vpc                      = var.vpc == null ? null : { subnet_ids = var.vpc.subnet_ids, security_group_ids = var.vpc.security_group_ids }
  kms_key_arn              = var.kms_key_arn
  permissions_boundary_arn = var.permissions_boundary_arn
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
