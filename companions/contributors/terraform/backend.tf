# The state's bucket and key are given by `make deploy`: `make bootstrap-state` makes the bucket.
terraform {
  backend "s3" {}
}
