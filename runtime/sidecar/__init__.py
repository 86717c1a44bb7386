"""The queue-proxy as a process of its own, in front of any program that speaks HTTP/1.1."""
