"""`python -m apps.providers.demo`."""

from apps.providers.demo.command_line import main

if __name__ == "__main__":
    main()
