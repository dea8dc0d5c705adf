"""The frame of every page: its style, its scripts (tables, charts, pictures), the charting library,
what may run in it (a Content-Security-Policy), and the page that lists all reports. What a page of
a kind says stands in `tasks.reports`."""
