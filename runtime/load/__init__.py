"""Load on a URL or a function, and what came of it."""
