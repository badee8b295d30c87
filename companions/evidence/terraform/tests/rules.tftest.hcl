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
  package     = "tests/packages/evidence.zip"
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
      module.function.resources.schedule.schedule_expression == "cron(0 4 * * ? *)"
      && length(module.function.resources.notifications) == 0
      && module.function.resources.function.environment[0].variables.EVIDENCE_SLACK__SECRET == aws_secretsmanager_secret.login["slack"].arn
      && strcontains(module.bucket.rules.policy, "/evidence/*/runs/*")
    )
    error_message = "It runs every day, and knows its logins."
  }

  assert {
    condition     = length(module.bucket.rules.lifecycle.rule[0].expiration) == 0
    error_message = "Zips stay unless it is asked for otherwise."
  }
}

run "to_the_bucket_alone" {
  command = apply

  variables {
    drive       = false
    slack       = false
    expire_days = 400
  }

  assert {
    condition     = keys(aws_secretsmanager_secret.login) == ["bitbucket"] && module.bucket.rules.lifecycle.rule[0].expiration[0].days == 400
    error_message = "What is not delivered to needs no login."
  }
}

run "what_is_none" {
  command = plan

  variables {
    name            = "Team!"
    package         = "nothing.zip"
    schedule        = "monthly"
    memory_mb       = 64
    timeout_seconds = 5
  }

  expect_failures = [var.name, var.package, var.schedule, var.memory_mb, var.timeout_seconds]
}
