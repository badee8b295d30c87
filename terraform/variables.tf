variable "name" {
  description = "The pipeline's name. With the environment it begins the name of every resource."
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

variable "pack" {
  description = "The folder of the model pack, from the root of the repository: `make deploy` packs it with the functions."
  type        = string

  validation {
    condition     = fileexists("../${var.pack}/schema.sql")
    error_message = "There is no model pack: it has no schema.sql."
  }
}

variable "packages" {
  description = "The folder with extract.zip, transform.zip and load.zip, as `make package` leaves them."
  type        = string
  default     = "../target/package"

  validation {
    condition     = alltrue([for stage in ["extract", "transform", "load"] : fileexists("${var.packages}/${stage}.zip")])
    error_message = "The packages are not there: make package."
  }
}

variable "architecture" {
  description = "The processor that the packages are built for."
  type        = string
  default     = "x86_64"

  validation {
    condition     = contains(["x86_64", "arm64"], var.architecture)
    error_message = "The architecture is x86_64 or arm64."
  }
}

variable "source_database" {
  description = "The database that is read: its address without a login, its schema, the columns that are never read, and the ARN of the secret with the login, under kms_key_arn or AWS's key (null: a secret is made, to be filled by hand)."
  type = object({
    url        = string
    schema     = optional(string, "public")
    exclude    = optional(list(string), [])
    secret_arn = optional(string)
  })

  validation {
    condition     = startswith(var.source_database.url, "postgres://") && !strcontains(var.source_database.url, "@")
    error_message = "The address begins with postgres:// and has no login: that stands in the secret."
  }
}

variable "warehouse_database" {
  description = "The database of the star schema: its address without a login, its schema, the roles that may read it, and the ARN of the secret with the login, under kms_key_arn or AWS's key (null: a secret is made, to be filled by hand)."
  type = object({
    url        = string
    schema     = optional(string, "public")
    readers    = optional(list(string), [])
    secret_arn = optional(string)
  })

  validation {
    condition     = startswith(var.warehouse_database.url, "postgres://") && !strcontains(var.warehouse_database.url, "@")
    error_message = "The address begins with postgres:// and has no login: that stands in the secret."
  }
}

variable "enabled" {
  description = "Whether the schedules run."
  type        = bool
  default     = true
}

variable "schedule" {
  description = "How often extract runs. If that is less often than every five minutes, change silence_minutes too."
  type        = string
  default     = "rate(5 minutes)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.schedule))
    error_message = "Write rate(...) or cron(...), as EventBridge Scheduler has them."
  }
}

variable "change_detection" {
  description = "How extract finds changes: by the source's write-ahead log where it offers that (auto), by scans of the tables (scan), or by the log with a notice where it is not possible (wal)."
  type        = string
  default     = "auto"

  validation {
    condition     = contains(["auto", "scan", "wal"], var.change_detection)
    error_message = "Write auto, scan or wal."
  }
}

variable "retained_wal_gb" {
  description = "An alarm is raised when the source keeps more than so many GB of its write-ahead log for the replication slot. Choose less than max_slot_wal_keep_size there."
  type        = number
  default     = 5

  validation {
    condition     = var.retained_wal_gb >= 1
    error_message = "The alarm is for 1 GB or more."
  }
}

variable "silence_minutes" {
  description = "An alarm is raised when extract has not run to its end for so long: three times as long as its schedule is, or more."
  type        = number
  default     = 15

  validation {
    condition     = var.silence_minutes >= 10 && var.silence_minutes <= 1440
    error_message = "Silence is noticed after 10 to 1440 minutes."
  }
}

variable "sweep" {
  description = "How often transform and load look for what an event did not bring."
  type        = string
  default     = "rate(10 minutes)"

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.sweep))
    error_message = "Write rate(...) or cron(...), as EventBridge Scheduler has them."
  }
}

variable "memory_mb" {
  description = "The memory of each function."
  type = object({
    extract   = optional(number, 512)
    transform = optional(number, 1024)
    load      = optional(number, 512)
  })
  default = {}

  validation {
    condition     = alltrue([for mb in values(var.memory_mb) : mb >= 256 && mb <= 10240])
    error_message = "A function has 256 to 10240 MB."
  }
}

variable "timeout_seconds" {
  description = "How long a function may run."
  type        = number
  default     = 900

  validation {
    condition     = var.timeout_seconds >= 60 && var.timeout_seconds <= 900
    error_message = "A function runs for 60 to 900 seconds."
  }
}

variable "disk_mb" {
  description = "The temporary disk of a function: the objects of a batch lie there while they are worked on."
  type        = number
  default     = 2048

  validation {
    condition     = var.disk_mb >= 512 && var.disk_mb <= 10240
    error_message = "A function has 512 to 10240 MB of disk."
  }
}

variable "vpc" {
  description = "The subnets and security groups in which the functions reach the databases, and which endpoints are made there: s3 (with the route tables that lead to it) and secretsmanager, unless the VPC has them; null: the databases are reached from outside any VPC."
  type = object({
    id                 = string
    subnet_ids         = list(string)
    security_group_ids = list(string)
    route_table_ids    = optional(list(string), [])
    endpoints          = optional(set(string), ["s3", "secretsmanager"])
  })
  default = null

  validation {
    condition     = var.vpc == null || alltrue([for id in try(concat([var.vpc.id], var.vpc.subnet_ids, var.vpc.security_group_ids, var.vpc.route_table_ids), []) : can(regex("^(vpc|subnet|sg|rtb)-", id))]) && length(try(var.vpc.subnet_ids, [])) > 0 && length(try(var.vpc.security_group_ids, [])) > 0
    error_message = "A VPC has its id (vpc-...), at least one subnet (subnet-...) and one security group (sg-...), and route tables (rtb-...)."
  }

  validation {
    condition     = length(setsubtract(try(var.vpc.endpoints, []), ["s3", "secretsmanager"])) == 0 && (!contains(try(var.vpc.endpoints, []), "s3") || length(try(var.vpc.route_table_ids, [])) > 0)
    error_message = "Endpoints are s3, which needs route_table_ids, and secretsmanager."
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

variable "noncurrent_version_days" {
  description = "How long a replaced or deleted object can be restored."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_version_days >= 1
    error_message = "An older version is kept for a day or more."
  }
}

variable "batch_mb" {
  description = "About how much of the source's tables a batch holds, as the source stores them. A first load takes as many batches as it needs."
  type        = number
  default     = 256

  validation {
    condition     = var.batch_mb >= 1 && var.batch_mb == floor(var.batch_mb)
    error_message = "A batch holds a whole number of MB, 1 or more."
  }
}

variable "quicksight" {
  description = "QuickSight over the warehouse; null: none. The ARN of the secret with the login of a role that may read, the ARNs of the users or groups that may see what is shown, the file that describes data sets and dashboard (null: quicksight.json of the model pack), and when the data sets are loaded anew (HOURLY, DAILY; null: every look asks the warehouse). docs/deploy.md says what must be there before."
  type = object({
    secret_arn  = string
    viewers     = list(string)
    description = optional(string)
    refresh     = optional(string, "HOURLY")
  })
  default = null

  validation {
    condition     = try(var.quicksight.refresh, null) == null || contains(["HOURLY", "DAILY"], try(var.quicksight.refresh, "HOURLY"))
    error_message = "QuickSight loads data sets HOURLY or DAILY; null asks the warehouse each time."
  }

  validation {
    condition     = alltrue([for viewer in try(var.quicksight.viewers, []) : can(regex("^arn:[a-z-]+:quicksight:", viewer))])
    error_message = "A viewer is the ARN of a QuickSight user or group."
  }

  validation {
    condition     = var.quicksight == null || length(try(var.vpc.subnet_ids, ["", ""])) >= 2
    error_message = "QuickSight's connection into a VPC needs two subnets."
  }

  validation {
    condition     = var.quicksight == null || can(regex("^postgres://[^/?]+/[^/?]+", var.warehouse_database.url))
    error_message = "QuickSight needs the name of the database in warehouse_database.url."
  }
}
