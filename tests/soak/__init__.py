"""Hours of life in minutes: half of what a gateway can do, all kinds of calls, nothing may grow."""
