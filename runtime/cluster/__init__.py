"""Where objects live and replicas run.

`interface` is what every other room may know of a cluster; `local` keeps objects in memory and runs replicas as
processes of this machine.
"""
