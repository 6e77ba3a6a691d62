"""The words of Torchy as data: buffers, views, ops, traces, and the op table."""
