"""Tries the autoscaler on recorded or made-up traffic: its own code over a virtual cluster and a virtual clock."""
