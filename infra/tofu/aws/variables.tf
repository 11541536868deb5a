variable "region" {
  description = "Where the bucket and the cluster are."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket for stores. It is revector's alone: see the comment on listing in identity.tf."
  type        = string
}

variable "store_prefix" {
  description = "Beginning of the keys below which stores are, as in s3://BUCKET/PREFIX."
  type        = string
  default     = "store"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9/_-]*[a-z0-9]$", var.store_prefix))
    error_message = "Expected a prefix without a slash at its ends, such as store or team/store."
  }
}

variable "sources" {
  description = "Where documents come from, read only: the bucket's ARN and the prefix of the keys."
  type        = list(object({ bucket_arn = string, prefix = string }))
}

variable "cluster_name" {
  description = "An EKS cluster that is there already, with a cluster autoscaler and the NVIDIA device plugin."
  type        = string
}

variable "oidc_provider_arn" {
  description = "The cluster's OpenID Connect provider in IAM, for the identities of service accounts."
  type        = string
}

variable "namespace" {
  description = "Where the service accounts are."
  type        = string
  default     = "revector"
}

variable "subnet_ids" {
  description = "Private subnets for GPU nodes: those of zones that have the instance type."
  type        = list(string)
}

variable "gpu_instance_types" {
  description = "Instance types with the same GPUs, or the autoscaler cannot say what a new node brings."
  type        = list(string)
  default     = ["g6.2xlarge"]
}

variable "gpus_per_node" {
  description = "How many GPUs such an instance has: by this the autoscaler knows it while there is none to look at."
  type        = number
  default     = 1
}

variable "gpu_nodes_at_most" {
  description = "The most that can run, and cost, at the same time."
  type        = number
  default     = 8
}
