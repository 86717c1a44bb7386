"""The ingress and the activator in one: routes a request, holds it while its revision rises, picks a replica.

A request passes `gateway` (which route), `activator` (which replica, or how long to wait) and `call` (its whole
life here, one object a request). It is always in the path, so it sees latency and errors for the policies.
"""
