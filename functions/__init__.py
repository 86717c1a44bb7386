"""What a developer writes and declares: handlers, projects and the resource kinds.

The lowest floor of the house: it imports nothing else of upwell's.
"""
