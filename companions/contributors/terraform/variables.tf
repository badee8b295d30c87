variable "name" {
  description = "Name of this installation; with the environment, the prefix of every resource name."
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
  description = "The zip that `make package STACK=contributors` leaves."
  type        = string
  default     = "../../../target/package/contributors.zip"

  validation {
    condition     = fileexists(var.package)
    error_message = "The package is not there: make package STACK=contributors."
  }
}

variable "configuration" {
  description = "The file of settings, from the root of the repository: `make deploy` packs it with the functions."
  type        = string
  default     = "companions/contributors/contributors.toml"
}

variable "organization" {
  description = "The organization on GitHub that is polled."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9-]{0,38}$", var.organization))
    error_message = "An organization is named as in its address: github.com/acme is acme."
  }
}

variable "reserve" {
  description = "How many of the token's requests an hour are left to others who use it: below so many, polls wait."
  type        = number
  default     = 500

  validation {
    condition     = var.reserve >= 0 && var.reserve < 15000 && var.reserve == floor(var.reserve)
    error_message = "A reserve is a whole number of requests, less than GitHub allows in an hour."
  }
}

variable "database_secret_arn" {
  description = "The ARN of the secret with the login of the Postgres database, under kms_key_arn or AWS's key: JSON as RDS writes it, with username and password, and host, port and dbname unless database_url has them."
  type        = string

  validation {
    condition     = can(regex("^arn:[a-z-]+:secretsmanager:", var.database_secret_arn))
    error_message = "Write the ARN of a secret in Secrets Manager."
  }
}

variable "database_url" {
  description = "The database's address without a login, as postgres://db.example:5432/metrics?sslmode=verify-full; null: the secret names the host. A secret that RDS manages does not."
  type        = string
  default     = null

  validation {
    condition     = var.database_url == null || can(regex("^postgres://[^@]+$", var.database_url))
    error_message = "The address begins with postgres:// and has no login: that stands in the secret."
  }
}

variable "vpc" {
  description = "The subnets and security groups in which load reaches the database. They need endpoints for S3 and Secrets Manager, as Blackwater's stack makes them in its VPC; null: the database is reached from outside any VPC. Poll always runs outside."
  type        = object({ subnet_ids = list(string), security_group_ids = list(string) })
  default     = null

  validation {
    condition = var.vpc == null || (
      length(try(var.vpc.subnet_ids, [])) > 0 && alltrue([for id in try(var.vpc.subnet_ids, []) : startswith(id, "subnet-")])
      && length(try(var.vpc.security_group_ids, [])) > 0 && alltrue([for id in try(var.vpc.security_group_ids, []) : startswith(id, "sg-")])
    )
    error_message = "A VPC has at least one subnet (subnet-...) and one security group (sg-...)."
  }
}

variable "schedule" {
  description = "How often to poll GitHub. If less often than every 20 minutes, raise oldest_minutes."
  type        = string
  default     = "rate(10 minutes)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.schedule))
    error_message = "Write rate(...) or cron(...), as EventBridge Scheduler has them."
  }
}

variable "sweep" {
  description = "How often load runs without a bucket event, to catch missed ones. If less often than every 40 minutes, raise behind_minutes."
  type        = string
  default     = "rate(30 minutes)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.sweep))
    error_message = "Write rate(...) or cron(...), as EventBridge Scheduler has them."
  }
}

variable "oldest_minutes" {
  description = "Raise the alarm when any repository was last polled longer ago than this, or no poll finished. Use at least three times the schedule."
  type        = number
  default     = 60

  validation {
    condition     = var.oldest_minutes >= 15 && var.oldest_minutes <= 1440 && var.oldest_minutes == floor(var.oldest_minutes)
    error_message = "It is a whole number of minutes, 15 to 1440."
  }
}

variable "behind_minutes" {
  description = "Raise the alarm when the newest poll in the database is older than this, or no load finished. Use at least three times the sweep."
  type        = number
  default     = 120

  validation {
    condition     = var.behind_minutes >= 15 && var.behind_minutes <= 1440 && var.behind_minutes == floor(var.behind_minutes)
    error_message = "It is a whole number of minutes, 15 to 1440."
  }
}

variable "answers_days" {
  description = "How long GitHub's answers are kept, which hold the logins and texts of people. The database can be made anew from them, as far back as they go; null: for ever."
  type        = number
  default     = 400

  validation {
    condition     = var.answers_days == null || try(var.answers_days >= 7, false)
    error_message = "Answers are kept for 7 days or more, so that load can catch up after a failure."
  }
}

variable "memory_mb" {
  description = "The memory of each function."
  type = object({
    poll = optional(number, 256)
    load = optional(number, 256)
  })
  default = {}

  validation {
    condition     = alltrue([for mb in values(var.memory_mb) : mb >= 256 && mb <= 10240])
    error_message = "A function has 256 to 10240 MB."
  }
}

variable "timeout_seconds" {
  description = "How long each function may run. A poll ends by itself before; the next one goes on from there."
  type = object({
    poll = optional(number, 840)
    load = optional(number, 300)
  })
  default = {}

  validation {
    condition     = alltrue([for seconds in values(var.timeout_seconds) : seconds >= 60 && seconds <= 900])
    error_message = "A function runs for 60 to 900 seconds."
  }
}

variable "enabled" {
  description = "Whether schedules run and alarms notify."
  type        = bool
  default     = true
}

variable "noncurrent_version_days" {
  description = "How long a replaced or deleted object can be restored. Each poll replaces its state."
  type        = number
  default     = 7

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
