# The stack without an account. The aliases have different names, because invented ARNs are made of names alone.

provider "aws" {
  access_key                  = "none"
  secret_key                  = "none"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
}

resource "aws_lambda_alias" "live" {
  name = "live-${each.key}"
}
