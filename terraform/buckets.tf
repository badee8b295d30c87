# The two logs. Nothing of them expires: a new warehouse is filled from it.

module "bucket" {
  source   = "./modules/bucket"
  for_each = toset(["ingestion", "processed"])

  name                    = "${local.prefix}-${each.key}-${data.aws_caller_identity.current.account_id}"
  kms_key_arn             = var.kms_key_arn
  noncurrent_version_days = var.noncurrent_version_days
  # A manifest is written once: of two runs with one number the second must fail.
  written_once = ["batches/*"]
}
