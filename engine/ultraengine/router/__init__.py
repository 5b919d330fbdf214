"""Which shard owns a key, and how a request gets there and back (requirement 001 §2.6).

    shard_map.py   4,096 slots -> shard, versioned
    partition.py   one request -> parts, one per shard, and their bounds
    retry.py       when an attempt is repeated, and what is said when it is not
    lane.py        what one stream sends to one shard, in order
    exposition.py  the metrics of several processes as one text
    wire.py        HTTP/1.1 requests and answers of the hop, as bytes
    driver.py      connections to the shards

All but the driver is values in, values out; nothing here knows what a command means.
"""
