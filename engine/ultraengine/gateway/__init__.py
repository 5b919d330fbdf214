"""The edge: HTTP, WebSocket, quotas, metrics (requirement 001 §2.6).

A request walks through these modules in this order:

    http.py       finds the route, bounds the body, writes the answer
    auth.py       who is it: API key or loopback (`ultraengine.edge`, like problems.py)
    envelope.py   bytes -> envelopes, headers merged in, server-made ids
    admission.py  quota, then the registry: envelope -> admitted command, or a refusal
    engine.py     what the edge needs from the engine behind it
    problems.py   replies and errors -> RFC 9457 documents

Before several shards a *front* has the same doors and forwards (`front/driver.py`):

    routed.py           commands to the shard of their key; routed_http.py, routed_stream.py
    forwarded.py        requests and answers of the hop; hop.py says who the caller is
    relay.py, watch.py  events of the shards, and how the shards are

`stream.py` does the same for WebSocket frames, `reads.py` for queries, `admin.py` for
operators; `driver.py` owns sockets, threads, key files and the drain.
"""
