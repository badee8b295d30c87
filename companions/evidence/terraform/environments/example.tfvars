# Copy it to <environment>.tfvars and fill it in: variables.tf describes every variable. It holds no secret: commit it.
name          = "team"
region        = "eu-west-2"
configuration = "companions/evidence/evidence.toml" # the settings, from the root of the repository

alert_emails = ["data@example.com"]

# drive = false
# slack = false
