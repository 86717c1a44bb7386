"""Knative's helloworld sample: greets whom the environment names."""

import os


async def main() -> str:
    return f"Hello {os.environ.get('TARGET', 'World')}!\n"
