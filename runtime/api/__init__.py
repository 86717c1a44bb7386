"""The platform's own interface: HTTP on a Unix socket, and the client that the commands use."""
