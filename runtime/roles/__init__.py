"""Where rooms are wired together, a module a role. Everything else takes Protocols."""
