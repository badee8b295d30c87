variable "name" {
  description = "The bucket's name."
  type        = string
}

variable "kms_key_arn" {
  description = "The key that encrypts it; null: S3's."
  type        = string
  default     = null
}

variable "noncurrent_version_days" {
  description = "How long a replaced or deleted object can be restored."
  type        = number
  default     = 30
}

variable "expire_days" {
  description = "How long an object is kept; null: for ever."
  type        = number
  default     = null
}

variable "written_once" {
  description = "The objects that are never overwritten, as batches/*: of two that are written at once the second fails."
  type        = list(string)
  default     = []
}
