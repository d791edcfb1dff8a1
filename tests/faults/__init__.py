"""What happens to money when processes die, freeze, or lose the database. Real processes only."""
