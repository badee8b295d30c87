# What must hold of every stack. The runs apply, because policies are known only then: against a provider that invents what AWS would
# answer. With the real one the login below lets nothing be made.

provider "aws" {
  region                      = "eu-west-2"
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

variables {
  name        = "team"
  environment = "test"
  region      = "eu-west-2"
  package     = "tests/packages/backup.zip"
}

run "whole" {
  command = apply

  assert {
    condition = alltrue([
      for statement in jsondecode(module.function.resources.policy).Statement : alltrue(concat(
        [for action in flatten([statement.Action]) : !strcontains(action, "*") && !strcontains(action, "Delete")],
        [for resource in flatten([statement.Resource]) : startswith(resource, "arn:") && !endswith(resource, ":::*")],
      ))
    ])
    error_message = "The role may do more than it names."
  }

  assert {
    condition = (
      module.function.resources.schedule.schedule_expression == "rate(1 hour)"
      && length(module.function.resources.notifications) == 0
      && module.function.resources.function.environment[0].variables.BACKUP_SECRET == aws_secretsmanager_secret.github.arn
      && strcontains(module.bucket.rules.policy, "/github/backups/*")
    )
    error_message = "It looks every hour, knows its secret, and its manifests are written once."
  }

  assert {
    condition = (
      module.bucket.rules.lock[0].rule[0].default_retention[0].mode == "GOVERNANCE"
      && module.bucket.rules.lock[0].rule[0].default_retention[0].days == 90
    )
    error_message = "Nobody removes a backup."
  }

  assert {
    condition = alltrue([
      for rule in module.bucket.rules.lifecycle.rule : length(rule.expiration) == 0 || rule.id == "expire github/running/"
    ])
    error_message = "Nothing expires that may be of the newest backup."
  }

  assert {
    condition = flatten([
      for rule in module.bucket.rules.lifecycle.rule : [for move in rule.transition : [move.storage_class, move.days, rule.filter[0].object_size_greater_than]]
    ]) == ["GLACIER_IR", 90, 131071]
    error_message = "What is large becomes cold."
  }

  assert {
    condition = (
      aws_cloudwatch_metric_alarm.age.treat_missing_data == "breaching"
      && aws_cloudwatch_metric_alarm.age.dimensions.name == module.function.resources.function.environment[0].variables.BACKUP_NAME
    )
    error_message = "It is told that no backup is made."
  }
}

run "warm_and_open" {
  command = apply

  variables {
    lock_days       = null
    cold_after_days = null
    prefix          = "a/b"
  }

  assert {
    condition     = length(module.bucket.rules.lock) == 0 && !anytrue([for rule in module.bucket.rules.lifecycle.rule : rule.id == "cold"])
    error_message = "What is not asked for is not there."
  }
}

run "what_is_none" {
  command = plan

  variables {
    name            = "Team!"
    package         = "nothing.zip"
    schedule        = "monthly"
    prefix          = "/a/"
    oldest_hours    = 1
    memory_mb       = 64
    timeout_seconds = 5
  }

  expect_failures = [var.name, var.package, var.schedule, var.prefix, var.oldest_hours, var.memory_mb, var.timeout_seconds]
}
