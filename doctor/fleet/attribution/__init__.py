"""Which change explains the difference."""
