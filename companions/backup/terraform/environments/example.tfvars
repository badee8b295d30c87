# Copy it to <environment>.tfvars and fill it in: variables.tf describes every variable. It holds no secret: commit it.
name          = "team"
region        = "eu-west-2"
configuration = "companions/backup/backup.toml" # the settings, from the root of the repository

alert_emails = ["data@example.com"]

# lock_days    = 90  # cannot be switched on later
# oldest_hours = 816 # 34 days, for a backup each month; 200 for one each week, 30 for one each day
