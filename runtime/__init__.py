"""Everything that runs: the function host, the proxies, the control plane and the commands."""
