output "name" {
  description = "The bucket's name."
  value       = aws_s3_bucket.this.bucket
}

output "arn" {
  description = "The bucket's ARN."
  value       = aws_s3_bucket.this.arn
}

output "rules" {
  description = "What keeps it safe, for tests: who may not reach it, what may not be done, and how long objects are kept."
  value = {
    access    = aws_s3_bucket_public_access_block.this
    policy    = data.aws_iam_policy_document.this.json
    lifecycle = aws_s3_bucket_lifecycle_configuration.this
    lock      = aws_s3_bucket_object_lock_configuration.this
  }
}
