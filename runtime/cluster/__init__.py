"""Where objects live and replicas run.

`interface`, `kinds`, `labels` and `reference` are what rooms above may know of a cluster. A store is `journaled`,
over SQLite (`sqlite`) or over nothing (`memory`); `local` runs replicas as processes of this machine.
"""
