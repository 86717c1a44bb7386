"""Reports in, replica counts out: Knative's autoscaling algorithm as pure functions of their inputs and `now`."""
