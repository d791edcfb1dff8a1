"""Password hashes for tests: the real algorithm at the lowest cost."""

from __future__ import annotations

from django.contrib.auth.hashers import Argon2PasswordHasher


class QuickArgon2PasswordHasher(Argon2PasswordHasher):
    """Takes microseconds instead of tens of milliseconds."""

    time_cost = 1
    memory_cost = 8
    parallelism = 1
