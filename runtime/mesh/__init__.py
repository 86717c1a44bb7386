"""Policies: what a mesh decides of a request, without a mesh. One file a policy, each pure; see `chain`."""
