"""Several sidecars behind the real Collector: what each gets, what moves, what is handed over."""
