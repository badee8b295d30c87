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
  name        = "uploads"
  environment = "test"
  region      = "eu-west-2"
  package     = "tests/packages/gate.zip"
}

run "whole" {
  command = apply

  variables {
    issue_repository = "acme/data"
    webhook_url      = "https://example.org/api/uploads/"
    mail             = { from = "gate@example.com", to = ["data@example.com", "more@example.com"], identities = ["example.com"] }
    settings         = { ISSUE__TITLE = "TEST {prefix}" }
    upload_origins   = ["https://upload.example.org"]
    alert_emails     = ["data@example.com"]
  }

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
    condition = alltrue([
      for statement in jsondecode(module.function.resources.policy).Statement :
      endswith(one(flatten([statement.Resource])), ":identity/example.com") if statement.Sid == "Mail"
    ])
    error_message = "It sends mails for its own identity alone."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(module.function.resources.policy).Statement :
      !anytrue([for action in flatten([statement.Action]) : startswith(action, "s3:Put")]) || alltrue([for resource in flatten([statement.Resource]) : startswith(resource, module.final[0].arn)])
    ])
    error_message = "It writes into the final bucket alone."
  }

  assert {
    condition = (
      module.function.resources.notifications[0].bucket == module.drop.name
      && module.function.resources.permissions[0].source_arn == module.drop.arn
      && module.function.resources.invocation.maximum_retry_attempts == 2
      && module.function.resources.schedule.schedule_expression == "rate(10 minutes)"
    )
    error_message = "Uploads invoke it, and the sweep."
  }

  assert {
    condition = (
      module.function.resources.function.environment[0].variables.GATE_DROP__BUCKET == module.drop.name
      && module.function.resources.function.environment[0].variables.GATE_MAIL__TO == "data@example.com,more@example.com"
      && module.function.resources.function.environment[0].variables.GATE_ISSUE__SECRET == aws_secretsmanager_secret.token["issue"].arn
      && module.function.resources.function.environment[0].variables.GATE_ISSUE__TITLE == "TEST {prefix}"
    )
    error_message = "It knows its settings."
  }

  assert {
    condition = alltrue(flatten([
      for bucket in [module.drop, module.final[0]] :
      [bucket.rules.access.block_public_acls, bucket.rules.access.block_public_policy, bucket.rules.access.ignore_public_acls, bucket.rules.access.restrict_public_buckets]
    ]))
    error_message = "A bucket may become public."
  }

  assert {
    condition     = module.drop.rules.lifecycle.rule[0].expiration[0].days == 90 && length(module.final[0].rules.lifecycle.rule[0].expiration) == 0
    error_message = "What is let in stays; what is uploaded goes after a while."
  }
}

run "nothing_but_buckets" {
  command = apply

  variables {
    final_bucket      = "acme-data"
    final_kms_key_arn = "arn:aws:kms:eu-west-2:123456789012:key/final"
  }

  assert {
    condition = (
      length(aws_secretsmanager_secret.token) == 0 && length(module.final) == 0 && length(aws_s3_bucket_cors_configuration.drop) == 0
      && length(jsondecode(module.function.resources.policy).Statement) == 6
      && strcontains(module.function.resources.policy, ":s3:::acme-data/*")
    )
    error_message = "It may do what it has to, and no more."
  }
}

run "what_is_none" {
  command = plan

  variables {
    name             = "Uploads!"
    package          = "nothing.zip"
    issue_repository = "data"
    webhook_url      = "http://example.org"
    mail             = { from = "nobody", to = [], identities = ["example.com"] }
    upload_origins   = ["example.org"]
    sweep            = "seldom"
    memory_mb        = 64
    timeout_seconds  = 5
  }

  expect_failures = [
    var.name, var.package, var.issue_repository, var.webhook_url, var.mail, var.upload_origins, var.sweep, var.memory_mb, var.timeout_seconds,
  ]
}
