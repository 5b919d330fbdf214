"""How one slot moves from one shard to another: the protocol, pure (`docs/slot-moves.md`).

    record.py   what one shard has logged about one slot, and what each message makes of it
    plan.py     what a coordinator does next, from what the shards say and the map names

Values in, values out; whoever carries a plan out keeps nothing that it could lose.
"""
