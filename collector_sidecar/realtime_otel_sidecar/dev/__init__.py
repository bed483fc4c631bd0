"""Everything in one process, for a laptop: a sidecar, what it sends its spans to, and the page that shows them."""
