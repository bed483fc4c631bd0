"""A voice agent on openai-agents, with a tool that calls a service in another process."""
