"""Reconcilers: from what is declared to what runs, by looking at what is there, again and again."""
