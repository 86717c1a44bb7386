"""The smallest function: whatever is asked, it says hello."""


async def main() -> str:
    return "Hello, World!\n"
