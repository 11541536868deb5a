output "store" {
  description = "For `store` in revector.toml."
  value       = "s3://${aws_s3_bucket.stores.id}/${var.store_prefix}"
}

output "role_arns" {
  description = "For the annotations eks.amazonaws.com/role-arn in kubernetes/overlays/prod/identities.yaml."
  value       = { for name, role in aws_iam_role.workload : name => role.arn }
}
