"""The resource kinds, one module an API group."""
