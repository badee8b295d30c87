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

variable "expire_folders" {
  description = "How many days objects are kept whose keys begin so; those of all other folders as expire_days has it."
  type        = map(number)
  default     = {}
}

variable "lock_days" {
  description = "For how many days nobody may remove an object, but for those who may bypass governance; null: no object lock, and there can be none later."
  type        = number
  default     = null
}

variable "cold_after_days" {
  description = "After how many days objects of 128 KB or more are moved to Glacier Instant Retrieval, where smaller ones would cost more; null: never."
  type        = number
  default     = null
}
