"""Reads over SQL, a process of its own: ``ultra query`` (requirement 001 §2.1, read APIs).

A request walks through these modules in this order:

    http.py       finds the read, says who asks, writes the answer
    routes.py     path -> declared read (`model.reads`)
    plan.py       parameters -> checked query; values.py reads the values, cursor.py the cursor
    caching.py    an answer that is kept, or none
    driver.py     waits for `min_offset`, asks a reader, minds time and number
    sql.py        query -> statements for one moment of one database (`dialect.py`)
    reader.py     what a database does for it: one snapshot, its position, rows (`readers/`)
    answer.py     rows -> answer

Everything but `http.py`, the drivers and `main.py` is values in, values out.
"""
