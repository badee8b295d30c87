# The two logs, and what they set off.

resource "aws_s3_bucket" "log" {
  for_each = toset(["ingestion", "processed"])

  bucket = "${local.prefix}-${each.key}-${data.aws_caller_identity.current.account_id}"
}

resource "aws_s3_bucket_public_access_block" "log" {
  for_each = aws_s3_bucket.log

  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "log" {
  for_each = aws_s3_bucket.log

  bucket = each.value.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_versioning" "log" {
  for_each = aws_s3_bucket.log

  bucket = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "log" {
  for_each = aws_s3_bucket.log

  bucket = each.value.id
  rule {
    bucket_key_enabled = var.kms_key_arn != null
    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

# Nothing of the log itself expires: a new warehouse is filled from it.
resource "aws_s3_bucket_lifecycle_configuration" "log" {
  for_each = aws_s3_bucket.log

  bucket = each.value.id

  rule {
    id     = "leftovers"
    status = "Enabled"
    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_version_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.log]
}

resource "aws_s3_bucket_policy" "log" {
  for_each = aws_s3_bucket.log

  bucket = each.value.id
  policy = data.aws_iam_policy_document.bucket[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.log]
}

data "aws_iam_policy_document" "bucket" {
  for_each = aws_s3_bucket.log

  statement {
    sid       = "EncryptedTransportOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [each.value.arn, "${each.value.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  # A manifest is written once: of two runs with one number the second must fail.
  statement {
    sid       = "ManifestsOnce"
    effect    = "Deny"
    actions   = ["s3:PutObject"]
    resources = ["${each.value.arn}/batches/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Null"
      variable = "s3:if-none-match"
      values   = ["true"]
    }
  }
}

locals {
  # Which stage follows on which bucket's manifests.
  follows = { ingestion = "transform", processed = "load" }
}

resource "aws_lambda_permission" "bucket" {
  for_each = local.follows

  statement_id   = "bucket"
  action         = "lambda:InvokeFunction"
  function_name  = aws_lambda_function.stage[each.value].function_name
  qualifier      = aws_lambda_alias.live[each.value].name
  principal      = "s3.amazonaws.com"
  source_arn     = aws_s3_bucket.log[each.key].arn
  source_account = data.aws_caller_identity.current.account_id
}

# A bucket has one notification resource; a second would replace it.
resource "aws_s3_bucket_notification" "log" {
  for_each = local.follows

  bucket = aws_s3_bucket.log[each.key].id

  lambda_function {
    lambda_function_arn = aws_lambda_alias.live[each.value].arn
    events              = ["s3:ObjectCreated:*"]
    filter_prefix       = "batches/"
  }

  depends_on = [aws_lambda_permission.bucket]
}
