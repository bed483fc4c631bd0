"""What a trace of a Realtime conversation should tell, as cases that any instrumentation can be tried on.

A scripted Realtime server plays a case to an agent; what the agent's instrumentation sends by OTLP is compared with
what really happened, which the server knows. Nothing here asks for names of this project: spans are recognised by the
GenAI semantic conventions, by OpenInference's, and by what each framework calls its own.
"""
