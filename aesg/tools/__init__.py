"""Tools that look at memories and show them at work."""
