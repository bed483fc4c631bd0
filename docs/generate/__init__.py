"""Write the pages that say in prose what the code says as data: ``make docs``.

``protocol.md`` and ``states.md`` come from the event table, ``attributes.md`` from the attribute registry,
``metrics.md`` from the table of instruments. What no table holds (introductions, why a span ends) stands here. Tests
hold both against what the stitcher does.
"""
