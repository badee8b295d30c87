# Copy it to <environment>.tfvars and fill it in: variables.tf describes every variable. It holds no secret: commit it.
name          = "team"
region        = "eu-west-2"
configuration = "companions/contributors/contributors.toml" # the settings, from the root of the repository
organization  = "acme"

database_secret_arn = "arn:aws:secretsmanager:eu-west-2:123456789012:secret:contributors/database-AbCdEf"
# database_url      = "postgres://metrics.abcdefgh.eu-west-2.rds.amazonaws.com:5432/metrics" # if the secret names no host

# Where load reaches the database.
# vpc = {
#   subnet_ids         = ["subnet-0123456789abcdef0"]
#   security_group_ids = ["sg-0123456789abcdef0"] # that the database lets in
# }

alert_emails = ["data@example.com"]

# reserve = 500 # of the token's 5,000 requests an hour, for others who use it
