variable "name" {
  description = "The function's name, and that of its role. It begins the names of all that belongs to it."
  type        = string
}

variable "description" {
  description = "What it is."
  type        = string
}

variable "package" {
  description = "The zip with its program as `bootstrap`."
  type        = string
}

variable "architecture" {
  description = "The processor that the package is built for: x86_64 or arm64."
  type        = string
}

variable "memory_mb" {
  description = "Its memory."
  type        = number
}

variable "timeout_seconds" {
  description = "How long it may run."
  type        = number
}

variable "disk_mb" {
  description = "Its temporary disk."
  type        = number
  default     = 512
}

variable "environment" {
  description = "Its variables."
  type        = map(string)
}

variable "statements" {
  description = "What it may do, by name, beside writing its log and its failures. One without resources is left out."
  type        = map(object({ actions = list(string), resources = list(string) }))
}

variable "retries" {
  description = "How often Lambda repeats an event that failed."
  type        = number
  default     = 2
}

variable "bucket" {
  description = "The bucket whose new objects invoke it, those with a prefix; null: none."
  type        = object({ name = string, arn = string, prefix = optional(string) })
  default     = null
}

variable "schedule" {
  description = "When it runs without an event, as EventBridge Scheduler has it, and what for."
  type        = object({ expression = string, description = string })
}

variable "enabled" {
  description = "Whether its schedule runs and its alarms are raised."
  type        = bool
  default     = true
}

variable "errors" {
  description = "The metric that counts the errors in its log. Each costs 0.30 USD a month, so functions may share one."
  type        = object({ namespace = string, metric = string })
}

variable "alarm_topic_arn" {
  description = "The topic that alarms are sent to."
  type        = string
}

variable "log_retention_days" {
  description = "How long log lines are kept."
  type        = number
  default     = 30
}

variable "vpc" {
  description = "The subnets and security groups that it runs in; null: it runs outside any VPC."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string) })
  default     = null
}

variable "kms_key_arn" {
  description = "The key of its queue, and of what it reads and writes; null: AWS's."
  type        = string
  default     = null
}

variable "permissions_boundary_arn" {
  description = "The permissions boundary of its roles; null: none."
  type        = string
  default     = null
}
