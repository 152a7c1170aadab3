"""For coding agents: a server for the Model Context Protocol, and a skill."""
