# The aliases have different names, because invented ARNs are made of names alone.
resource "aws_lambda_alias" "live" {
  name = "live-${reverse(split("-", var.name))[0]}"
}
