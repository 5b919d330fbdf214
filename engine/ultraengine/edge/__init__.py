"""What every process that answers HTTP has in common: the engine's gateway and the query API.

    door.py      accepts, and answers ``/healthz`` on a thread of its own (`health.py`)
    server.py    connections, key files
    routes.py    finds the route, bounds what is read, writes the answer
    auth.py      who is it: API key or loopback
    quota.py     how much a tenant may ask for
    codec.py     JSON and msgpack
    problems.py  errors -> RFC 9457 documents
    documents.py ``/openapi.json`` (`openapi.py`) and ``/docs``

Knows no command and no read; lies below `gateway` and `query`, which know nothing of each other.
"""
