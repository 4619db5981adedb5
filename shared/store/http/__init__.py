"""The HTTP client beneath minio: it follows no redirect, waits no longer than `limits`, and knows a page from XML.

Only `shared.store.connection` imports it, with the first request: urllib3 is slow to load.
"""
