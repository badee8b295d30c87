variable "name" {
  description = "Its name. With the environment it begins the name of every resource."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}$", var.name))
    error_message = "A name has at most 20 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "environment" {
  description = "The environment, as dev or prod."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{0,9}$", var.environment))
    error_message = "An environment has at most 10 lower-case letters and digits, a letter first."
  }
}

variable "region" {
  description = "The AWS region."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "Write a region as eu-west-2."
  }
}

variable "architecture" {
  description = "The processor that the package is built for."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture is x86_64 or arm64."
  }
}

variable "package" {
  description = "The zip that `make package STACK=backup` leaves."
  type        = string
  default     = "../../../target/package/backup.zip"

  validation {
    condition     = fileexists(var.package)
    error_message = "The package is not there: make package STACK=backup."
  }
}

variable "configuration" {
  description = "The file of settings, from the root of the repository: `make deploy` packs it with the function."
  type        = string
  default     = "companions/backup/backup.toml"
}

variable "prefix" {
  description = "What all keys begin with."
  type        = string
  default     = "github"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/_-]*[a-z0-9]$", var.prefix))
    error_message = "A prefix has lower-case letters, digits, hyphens, underscores and slashes, the last not at its ends."
  }
}

variable "largest" {
  description = "Repositories that are larger are not read in full by the function, as they would not end in its time: `backup run --only` on a machine does."
  type        = string
  default     = "4GB"
}

variable "schedule" {
  description = "How often it looks whether a backup is due, and goes on with one that is begun."
  type        = string
  default     = "rate(1 hour)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.schedule))
    error_message = "Write rate(...) or cron(...), as EventBridge Scheduler has them."
  }
}

variable "oldest_hours" {
  description = "How old the newest backup may be before an alarm: more than the time between two, as `every` in backup.toml has it."
  type        = number
  default     = 816

  validation {
    condition     = var.oldest_hours >= 2
    error_message = "The function looks every hour."
  }
}

variable "lock_days" {
  description = "For how long nobody may remove an object, but for those who may bypass governance; null: no object lock. It cannot be added to a bucket that was made without."
  type        = number
  default     = 90
}

variable "cold_after_days" {
  description = "After how many days objects of 128 KB or more are moved to Glacier Instant Retrieval; null: never."
  type        = number
  default     = 90
}

variable "memory_mb" {
  description = "The function's memory."
  type        = number
  default     = 512

  validation {
    condition     = var.memory_mb >= 256 && var.memory_mb <= 10240
    error_message = "A function has 256 to 10240 MB."
  }
}

variable "timeout_seconds" {
  description = "How long the function may run."
  type        = number
  default     = 900

  validation {
    condition     = var.timeout_seconds >= 30 && var.timeout_seconds <= 900
    error_message = "A function runs for 30 to 900 seconds."
  }
}

variable "enabled" {
  description = "Whether the schedule runs and alarms are raised."
  type        = bool
  default     = true
}

variable "noncurrent_version_days" {
  description = "How long a replaced or deleted object can be restored."
  type        = number
  default     = 180

  validation {
    condition     = var.noncurrent_version_days >= 1
    error_message = "An older version is kept for a day or more."
  }
}

variable "alert_emails" {
  description = "Who hears of alarms. Each has to confirm the subscription."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", email))])
    error_message = "That is no e-mail address."
  }
}

variable "log_retention_days" {
  description = "How long log lines are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch keeps lines for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365 days or whole years."
  }
}

variable "kms_key_arn" {
  description = "A key of one's own for buckets, secrets, queues and topic; null: AWS's. Its policy must let this account's roles use it, and cloudwatch.amazonaws.com for the alarms."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:", var.kms_key_arn))
    error_message = "Write the ARN of a KMS key."
  }
}

variable "permissions_boundary_arn" {
  description = "The permissions boundary of every role; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:[a-z-]+:iam::.*:policy/", var.permissions_boundary_arn))
    error_message = "Write the ARN of a policy."
  }
}
