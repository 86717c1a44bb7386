"""The queue-proxy: admission, accounting, timeouts, probes and drain around one handler."""
