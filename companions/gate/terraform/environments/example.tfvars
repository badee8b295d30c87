# Copy it to <environment>.tfvars and fill it in: variables.tf describes every variable. It holds no secret: commit it.
name          = "uploads"
region        = "eu-west-2"
configuration = "companions/gate/gate.toml" # the rules, from the root of the repository

names_url        = "https://example.org/api/councils/{area}.json"
issue_repository = "acme/data"
webhook_url      = "https://example.org/api/uploads/"
mail             = { from = "gate@example.com", to = ["data@example.com"], identities = ["example.com"] }

alert_emails = ["data@example.com"]

# upload_origins = ["https://upload.example.org"]
# settings       = { ISSUE__TITLE = "TEST Import {area} for {date}" }
