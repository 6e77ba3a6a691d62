"""What a session does: regions begin and end it, flushes run what it has recorded, a log tells its report."""
