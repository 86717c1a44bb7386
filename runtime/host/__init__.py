"""The function host: a base zygote, a template for each revision, and replicas forked from it.

The zygote holds the interpreter and our imports. A template is forked from it for one revision and imports the
user's module once. A replica is forked from the template and serves on a socket that already exists. The zygote is
the parent of all of them and tells the platform how each ended; whatever way the platform ends, all of them end.
"""
