# Roles that service accounts take (IRSA): short-lived credentials in the pods, and none to keep. Two roles with the same rights, so that
# CloudTrail tells what a driver or an actor did from what a flow did, and one that reads only.
locals {
  writers = {
    ray     = ["ray-head", "ray-worker"]
    prefect = ["prefect-worker"]
  }
  accounts = merge(local.writers, { dashboard = ["dashboard"] })
  issuer   = element(split("oidc-provider/", var.oidc_provider_arn), 1)
}

data "aws_iam_policy_document" "trust" {
  for_each = local.accounts

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [var.oidc_provider_arn]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = [for account in each.value : "system:serviceaccount:${var.namespace}:${account}"]
    }
  }
}

resource "aws_iam_role" "workload" {
  for_each = local.accounts

  name                 = "revector-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 43200 # seconds
}

data "aws_iam_policy_document" "changes" {
  statement {
    sid = "Changes"
    actions = [
      "s3:PutObject",
      "s3:DeleteObject",
      "s3:AbortMultipartUpload",
      "s3:ListMultipartUploadParts",
    ]
    resources = ["${aws_s3_bucket.stores.arn}/${var.store_prefix}/*"]
  }
}

data "aws_iam_policy_document" "reading" {
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.stores.arn}/${var.store_prefix}/*"]
  }

  # For the whole bucket, not for the prefix alone: S3 answers a read of an object that is not there with 404 only to those who may list,
  # and such a read names no prefix that a condition could be held against. With 403 instead, "not made yet" would look like an error.
  # So the bucket is revector's alone, and there is nothing else in it to list.
  statement {
    sid       = "Listing"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.stores.arn]
  }

  dynamic "statement" {
    for_each = var.sources

    content {
      sid       = "Documents${statement.key}"
      actions   = ["s3:GetObject"]
      resources = ["${statement.value.bucket_arn}/${statement.value.prefix}*"]
    }
  }

  dynamic "statement" {
    for_each = var.sources

    content {
      sid       = "ListingOfDocuments${statement.key}"
      actions   = ["s3:ListBucket"]
      resources = [statement.value.bucket_arn]

      condition {
        test     = "StringLike"
        variable = "s3:prefix"
        values   = ["${statement.value.prefix}*"]
      }
    }
  }
}

resource "aws_iam_policy" "changes" {
  name   = "revector-changes"
  policy = data.aws_iam_policy_document.changes.json
}

resource "aws_iam_policy" "reading" {
  name   = "revector-reading"
  policy = data.aws_iam_policy_document.reading.json
}

resource "aws_iam_role_policy_attachment" "changes" {
  for_each = local.writers

  role       = aws_iam_role.workload[each.key].name
  policy_arn = aws_iam_policy.changes.arn
}

resource "aws_iam_role_policy_attachment" "reading" {
  for_each = local.accounts

  role       = aws_iam_role.workload[each.key].name
  policy_arn = aws_iam_policy.reading.arn
}
