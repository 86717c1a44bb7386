"""``python -m upwell`` is the ``upwell`` command."""

from upwell.runtime.cli.main import main

if __name__ == "__main__":
    main()
