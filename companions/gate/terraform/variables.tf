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
  description = "The zip that `make package STACK=gate` leaves."
  type        = string
  default     = "../../../target/package/gate.zip"

  validation {
    condition     = fileexists(var.package)
    error_message = "The package is not there: make package STACK=gate."
  }
}

variable "configuration" {
  description = "The file of rules, from the root of the repository: `make deploy` packs it with the function."
  type        = string
  default     = "companions/gate/gate.toml"
}

variable "final_bucket" {
  description = "The bucket that files are let in to, in this region, one that invokes no gate; null: one is made."
  type        = string
  default     = null
}

variable "final_kms_key_arn" {
  description = "The key that encrypts final_bucket, if that has one of its own."
  type        = string
  default     = null
}

variable "upload_origins" {
  description = "The origins of pages whose forms upload to the drop bucket, as https://example.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.upload_origins : can(regex("^https?://[^/*]+$", origin))])
    error_message = "Write an origin as https://example.com, without a path."
  }
}

variable "names_url" {
  description = "Where the name of an upload is looked up, as https://example.org/councils/{area}.json; null: nowhere."
  type        = string
  default     = null
}

variable "names_token" {
  description = "Whether names_url asks for a token. A secret for it is made."
  type        = bool
  default     = false
}

variable "issue_repository" {
  description = "The repository on GitHub that issues are raised in, as owner/name; null: none. A secret for its token is made."
  type        = string
  default     = null

  validation {
    condition     = var.issue_repository == null || can(regex("^[^/]+/[^/]+$", var.issue_repository))
    error_message = "Write owner/name."
  }
}

variable "mail" {
  description = "Who mails are from and to, and the identities of SES in this region that they touch: the address or domain that may send, and while the account is in the sandbox those of the recipients too; null: no mails."
  type        = object({ from = string, to = list(string), identities = list(string) })
  default     = null

  validation {
    condition     = alltrue([for address in try(concat([var.mail.from], var.mail.to), []) : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "That is no e-mail address."
  }
}

variable "webhook_url" {
  description = "Where reports are sent; null: nowhere. A secret for its token is made."
  type        = string
  default     = null

  validation {
    condition     = var.webhook_url == null || can(regex("^https://", var.webhook_url))
    error_message = "The address begins with https://."
  }
}

variable "settings" {
  description = "Further settings, over those of the rules, as { ISSUE__TITLE = \"TEST Import {prefix}\" }."
  type        = map(string)
  default     = {}
}

variable "sweep" {
  description = "How often the gate looks for uploads that an event did not bring, or that wait."
  type        = string
  default     = "rate(10 minutes)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.sweep))
    error_message = "Write rate(...) or cron(...), as EventBridge Scheduler has them."
  }
}

variable "memory_mb" {
  description = "The function's memory. More is faster: the processor grows with it."
  type        = number
  default     = 512

  validation {
    condition     = var.memory_mb >= 128 && var.memory_mb <= 10240
    error_message = "A function has 128 to 10240 MB."
  }
}

variable "timeout_seconds" {
  description = "How long the function may run. For so long nobody else goes on with an upload whose run has died."
  type        = number
  default     = 300

  validation {
    condition     = var.timeout_seconds >= 30 && var.timeout_seconds <= 900
    error_message = "A function runs for 30 to 900 seconds."
  }
}

variable "expire_days" {
  description = "How long uploads stay in the drop bucket; null: for ever."
  type        = number
  default     = 90
}

variable "enabled" {
  description = "Whether the sweep runs and alarms are raised."
  type        = bool
  default     = true
}

variable "noncurrent_version_days" {
  description = "How long a replaced or deleted object can be restored."
  type        = number
  default     = 30

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
