"""Conversations as a page for a browser: ``view`` says what there is to draw, ``document`` puts it into one file.

What is drawn where, and how it can be used, is in ``static``: HTML, CSS and JavaScript that are written by hand, and
read by the browser as they are.
"""
