/* The ledger's fast lane: ordinary transfers, decided, applied and recorded in one go, and
 * recorded ones read and applied again.
 *
 * `transfers.py` and `evolve.py` are the reference.  What is done here for a transfer is what
 * `decide_transfer` and `evolve` do on their fast path, and the event's bytes are those that
 * msgspec writes for a `Transferred`.  Whatever is not ordinary is left to the caller.
 *
 * `AccountFields` are the fields of `state.Account` as machine words, so that a million of them
 * take little memory.  A number that needs more than a word is kept as a Python integer.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

/* An integer of any size: `big` when it does not fit into a word. */
typedef struct {
    long long word;
    PyObject *big;
} Number;

typedef struct {
    PyObject_HEAD
    PyObject *id, *asset, *min_balance, *max_balance, *metadata, *anchors, *late;
    Number balance, pending_in, pending_out, low, high;
    long long number, version, head, effective_max;
    char closed, dirty;
} Account;

static PyTypeObject *account_type;

static PyObject *get_number(Account *self, void *offset) {
    Number *number = (Number *)((char *)self + (Py_ssize_t)offset);
    return number->big ? Py_NewRef(number->big) : PyLong_FromLongLong(number->word);
}

static int set_number(Account *self, PyObject *value, void *offset) {
    Number *number = (Number *)((char *)self + (Py_ssize_t)offset);
    int overflow = 0;
    if (value == NULL || !PyLong_Check(value)) {
        PyErr_SetString(PyExc_TypeError, "a number of an account is an integer");
        return -1;
    }
    long long word = PyLong_AsLongLongAndOverflow(value, &overflow);
    PyObject *before = number->big;
    number->big = overflow ? Py_NewRef(value) : NULL;
    number->word = overflow ? 0 : word;
    Py_XDECREF(before);
    return 0;
}

#define OBJECT(name) {#name, T_OBJECT_EX, offsetof(Account, name), 0, NULL}
#define WORD(name) {#name, T_LONGLONG, offsetof(Account, name), 0, NULL}
#define TRUTH(name) {#name, T_BOOL, offsetof(Account, name), 0, NULL}
#define NUMBER(name)                                                                              \
    {#name, (getter)get_number, (setter)set_number, NULL, (void *)offsetof(Account, name)}

static PyMemberDef account_members[] = {
    OBJECT(id),      OBJECT(asset), OBJECT(min_balance), OBJECT(max_balance), OBJECT(metadata),
    OBJECT(anchors), OBJECT(late),  WORD(number),        WORD(version),       WORD(head),
    WORD(effective_max), TRUTH(closed), TRUTH(dirty), {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef account_numbers[] = {
    NUMBER(balance), NUMBER(pending_in), NUMBER(pending_out), NUMBER(low), NUMBER(high),
    {NULL, NULL, NULL, NULL, NULL},
};

static void account_dealloc(Account *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(self->id);
    Py_CLEAR(self->asset);
    Py_CLEAR(self->min_balance);
    Py_CLEAR(self->max_balance);
    Py_CLEAR(self->metadata);
    Py_CLEAR(self->anchors);
    Py_CLEAR(self->late);
    Py_CLEAR(self->balance.big);
    Py_CLEAR(self->pending_in.big);
    Py_CLEAR(self->pending_out.big);
    Py_CLEAR(self->low.big);
    Py_CLEAR(self->high.big);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot account_slots[] = {
    {Py_tp_doc, "Fields of an account as machine words where they fit."},
    {Py_tp_members, account_members},
    {Py_tp_getset, account_numbers},
    {Py_tp_dealloc, account_dealloc},
    {0, NULL},
};

static PyType_Spec account_spec = {
    .name = "ultraengine.domains.ledger._lane.AccountFields",
    .basicsize = sizeof(Account),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = account_slots,
};

/* --- msgpack, as msgspec writes it: the shortest form of each value --- */

typedef struct {
    unsigned char *bytes;
    size_t size, room;
} Buffer;

static int reserve(Buffer *out, size_t more) {
    if (out->room - out->size >= more)
        return 0;
    size_t room = (out->size + more) * 2;
    unsigned char *bytes = PyMem_Realloc(out->bytes, room);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    out->bytes = bytes;
    out->room = room;
    return 0;
}

static void put_big_endian(Buffer *out, unsigned char code, unsigned long long value, int width) {
    out->bytes[out->size++] = code;
    for (int shift = (width - 1) * 8; shift >= 0; shift -= 8)
        out->bytes[out->size++] = (unsigned char)(value >> shift);
}

static int put_integer(Buffer *out, long long value) {
    if (reserve(out, 9) < 0)
        return -1;
    unsigned long long bits = (unsigned long long)value;
    if (value >= -32 && value < 128)
        out->bytes[out->size++] = (unsigned char)value;
    else if (value >= 0 && value <= 0xff)
        put_big_endian(out, 0xcc, bits, 1);
    else if (value >= 0 && value <= 0xffff)
        put_big_endian(out, 0xcd, bits, 2);
    else if (value >= 0 && value <= 0xffffffffLL)
        put_big_endian(out, 0xce, bits, 4);
    else if (value >= 0)
        put_big_endian(out, 0xcf, bits, 8);
    else if (value >= -128)
        put_big_endian(out, 0xd0, bits, 1);
    else if (value >= -32768)
        put_big_endian(out, 0xd1, bits, 2);
    else if (value >= -2147483648LL)
        put_big_endian(out, 0xd2, bits, 4);
    else
        put_big_endian(out, 0xd3, bits, 8);
    return 0;
}

static int put_text(Buffer *out, const char *text, size_t size) {
    if (reserve(out, size + 5) < 0)
        return -1;
    if (size < 32)
        out->bytes[out->size++] = (unsigned char)(0xa0 | size);
    else if (size <= 0xff)
        put_big_endian(out, 0xd9, size, 1);
    else if (size <= 0xffff)
        put_big_endian(out, 0xda, size, 2);
    else
        put_big_endian(out, 0xdb, size, 4);
    memcpy(out->bytes + out->size, text, size);
    out->size += size;
    return 0;
}

/* None, an integer of one word, or text. */
static int put_value(Buffer *out, PyObject *value) {
    if (value == Py_None) {
        if (reserve(out, 1) < 0)
            return -1;
        out->bytes[out->size++] = 0xc0;
        return 0;
    }
    if (PyLong_CheckExact(value)) {
        long long word = PyLong_AsLongLong(value);
        if (word == -1 && PyErr_Occurred())
            return -1;
        return put_integer(out, word);
    }
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    return text == NULL ? -1 : put_text(out, text, (size_t)size);
}

/* --- names --- */

/* Whether text is 1-128 characters of A-Z a-z 0-9 . _ : - (`model.ids.is_name`). */
static int is_name(PyObject *text) {
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text))
        return 0;
    Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    const Py_UCS1 *characters = PyUnicode_1BYTE_DATA(text);
    if (size < 1 || size > 128)
        return 0;
    for (Py_ssize_t at = 0; at < size; at++) {
        Py_UCS1 one = characters[at];
        if (!((one >= 'a' && one <= 'z') || (one >= '0' && one <= '9') ||
              (one >= 'A' && one <= 'Z') || one == '-' || one == '.' || one == '_' || one == ':'))
            return 0;
    }
    return 1;
}

/* --- the lane --- */

enum { ID, LINKED, SOURCE, TARGET, AMOUNT, PENDING, EFFECTIVE, CODE, REFERENCE, FIELDS };
static const char *const field_names[FIELDS] = {
    "id", "linked", "source", "target", "amount", "pending_timeout_s", "effective_time", "code",
    "reference",
};

enum { NUMBER, ACCOUNTS, ADD, CANDIDATES, SEED, HIGHEST, SLOT, OFFSET, BASE, RECENT, PARTS };
static const char *const part_names[PARTS] = {
    "number", "accounts", "add", "candidates", "seed", "highest", "slot", "offset", "base", "recent",
};

enum { VERSIONS, DRY_RUN, TRANSFERS, MEMBERS };
static const char *const member_names[MEMBERS] = {"if_versions", "dry_run", "transfers"};

enum { OUTCOME_OFFSET, OUTCOME_STATUS, OUTCOME_EVENTS, OUTCOME_MEMBERS };
static const char *const outcome_names[OUTCOME_MEMBERS] = {"offset", "status", "events"};

static PyObject *str_offset, *str_time;

/* What does not change while a lane exists. */
typedef struct {
    PyObject_HEAD
    PyObject *item_type, *book_type, *slot_type, *data_type;
    PyObject *result_type, *results_type; /* of an item, and of a command */
    PyObject *outcome_type;
    PyObject *status;                     /* what is told of an item that was done */
    PyObject *head, *tail; /* bytes of the results of a single item, around its id */
    Py_ssize_t members[MEMBERS]; /* of the members within a command */
    Py_ssize_t offsets[FIELDS]; /* of the fields within an item */
    Py_ssize_t parts[PARTS];    /* of the parts of a book */
    Py_ssize_t changed;         /* of the list of changes within a slot */
    Py_ssize_t outcome_members[OUTCOME_MEMBERS]; /* of the members within an outcome */
    PyObject *hash;             /* (bytes, seed) -> 8 bytes */
    PyObject *done;             /* stands for the event in the verdicts */
    long long fast_end, anchor_mask;
    int index_bits; /* of a position, below the offset */
} Lane;

/* What does not change while one run of items is executed. */
typedef struct {
    Lane *lane;
    PyObject *book, *accounts, *add, *candidates, *seed, *highest, *changed;
    PyObject *verdicts; /* NULL when nobody asks for them */
    long long number, time, position;
    Buffer out;
} Run;

/* The object in a slot of another one; borrowed, NULL when it was never set. */
static PyObject *at_offset(PyObject *holder, Py_ssize_t offset) {
    return *(PyObject **)((char *)holder + offset);
}

static Account *account_of(Run *run, PyObject *id) {
    PyObject *found = PyDict_GetItemWithError(run->accounts, id);
    if (found == NULL)
        return NULL;
    if (!PyObject_TypeCheck(found, account_type)) {
        PyErr_SetString(PyExc_TypeError, "an account has compiled fields");
        return NULL;
    }
    return (Account *)found;
}

static PyObject *hash_of(Run *run, PyObject *id) {
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(id, &size);
    PyObject *raw = text == NULL ? NULL : PyBytes_FromStringAndSize(text, size);
    if (raw == NULL)
        return NULL;
    PyObject *args[2] = {raw, run->seed};
    PyObject *hash = PyObject_Vectorcall(run->lane->hash, args, 2, NULL);
    Py_DECREF(raw);
    return hash;
}

/* 1 when the id is higher than all before or its hash was never seen; -1 with an exception. */
static int is_new(Run *run, PyObject *hash, int higher) {
    if (higher)
        return 1;
    PyObject *found = PyObject_CallOneArg(run->candidates, hash);
    if (found == NULL)
        return -1;
    int empty = PyTuple_CheckExact(found) && PyTuple_GET_SIZE(found) == 0;
    Py_DECREF(found);
    return empty;
}

static int touch(Run *run, Account *account) {
    if (account->dirty)
        return 0;
    PyObject *pair = PyTuple_Pack(2, run->book, (PyObject *)account);
    if (pair == NULL)
        return -1;
    int failed = PyList_Append(run->changed, pair);
    Py_DECREF(pair);
    if (failed == 0)
        account->dirty = 1;
    return failed;
}

static int fits(const Account *account) {
    return account->balance.big == NULL && account->low.big == NULL && account->high.big == NULL;
}

/* What a transfer does to its two accounts. */
typedef struct {
    Account *source, *target;
    long long source_balance, target_balance, source_version, target_version, moment;
} Move;

/* Applies a transfer at the run's position, and goes on to the next one.  -1 with an exception. */
static int settle(Run *run, const Move *move, PyObject *id, PyObject *hash, int higher) {
    Account *source = move->source, *target = move->target;
    source->balance.word = move->source_balance;
    target->balance.word = move->target_balance;
    source->version = move->source_version;
    target->version = move->target_version;
    source->head = target->head = run->position;
    source->effective_max = target->effective_max = move->moment;
    if (higher)
        Py_SETREF(run->highest, Py_NewRef(id));
    PyObject *entry = PyLong_FromLongLong(run->position + run->position);
    PyObject *args[2] = {hash, entry};
    PyObject *added = entry == NULL ? NULL : PyObject_Vectorcall(run->add, args, 2, NULL);
    Py_XDECREF(entry);
    if (added == NULL)
        return -1;
    Py_DECREF(added);
    run->position++;
    return touch(run, source) < 0 || touch(run, target) < 0 ? -1 : 0;
}

/* One item: 1 = done, 0 = not ordinary and nothing was changed, -1 = failed. */
static int execute(Run *run, PyObject *item) {
    Lane *lane = run->lane;
    if ((PyObject *)Py_TYPE(item) != lane->item_type)
        return 0;
    PyObject *fields[FIELDS];
    for (int field = 0; field < FIELDS; field++) {
        fields[field] = at_offset(item, lane->offsets[field]);
        if (fields[field] == NULL)
            return 0;
    }
    PyObject *effective = fields[EFFECTIVE], *code = fields[CODE];
    if (fields[LINKED] != Py_False || fields[PENDING] != Py_None ||
        !PyLong_CheckExact(fields[AMOUNT]) || !PyUnicode_CheckExact(fields[ID]) ||
        !PyUnicode_CheckExact(fields[SOURCE]) || !PyUnicode_CheckExact(fields[TARGET]) ||
        (effective != Py_None && !PyLong_CheckExact(effective)) ||
        (code != Py_None && !PyLong_CheckExact(code) && !PyUnicode_CheckExact(code)) ||
        (fields[REFERENCE] != Py_None && !PyUnicode_CheckExact(fields[REFERENCE])))
        return 0;
    int overflow = 0;
    long long amount = PyLong_AsLongLongAndOverflow(fields[AMOUNT], &overflow);
    if (overflow || amount <= 0 || amount >= lane->fast_end)
        return 0;
    Account *source = account_of(run, fields[SOURCE]);
    if (source == NULL)
        return PyErr_Occurred() ? -1 : 0;
    Account *target = account_of(run, fields[TARGET]);
    if (target == NULL)
        return PyErr_Occurred() ? -1 : 0;
    if (source == target || source->asset != target->asset || !fits(source) || !fits(target))
        return 0;
    long long moment = run->time;
    if (effective != Py_None) {
        moment = PyLong_AsLongLongAndOverflow(effective, &overflow);
        if (overflow)
            return 0;
    }
    /* A window lies within (-fast_end, fast_end), so these do not overflow. */
    long long source_balance = source->balance.word - amount;
    long long target_balance = target->balance.word + amount;
    long long source_version = source->version + 1, target_version = target->version + 1;
    if (source_balance < source->low.word || target_balance > target->high.word ||
        !(source_version & lane->anchor_mask) || !(target_version & lane->anchor_mask) ||
        moment < source->effective_max || moment < target->effective_max)
        return 0;
    int higher = PyUnicode_Compare(fields[ID], run->highest) > 0;
    PyObject *hash = hash_of(run, fields[ID]);
    if (hash == NULL)
        return -1;
    int fresh = is_new(run, hash, higher);
    if (fresh <= 0) {
        Py_DECREF(hash);
        return fresh;
    }
    /* The event's bytes first: what cannot be recorded has changed nothing. */
    Buffer *out = &run->out;
    size_t mark = out->size;
    int failed = reserve(out, 4) < 0;
    if (!failed) {
        put_big_endian(out, 0xdc, 16, 2); /* an array of the tag and 15 fields */
        out->bytes[out->size++] = 1;      /* the tag of Transferred */
        failed = put_integer(out, run->number) < 0 || put_value(out, fields[ID]) < 0 ||
                 put_value(out, fields[SOURCE]) < 0 || put_value(out, fields[TARGET]) < 0 ||
                 put_integer(out, amount) < 0 || put_integer(out, source_balance) < 0 ||
                 put_integer(out, target_balance) < 0 || put_integer(out, source_version) < 0 ||
                 put_integer(out, target_version) < 0 || put_integer(out, source->head) < 0 ||
                 put_integer(out, target->head) < 0 || put_integer(out, run->time) < 0 ||
                 put_value(out, effective) < 0 || put_value(out, code) < 0 ||
                 put_value(out, fields[REFERENCE]) < 0;
    }
    if (failed) {
        out->size = mark;
        Py_DECREF(hash);
        PyErr_Clear();
        return 0;
    }
    Move move = {source, target, source_balance, target_balance, source_version, target_version, moment};
    int settled = settle(run, &move, fields[ID], hash, higher);
    Py_DECREF(hash);
    if (settled < 0 || (run->verdicts != NULL && PyList_Append(run->verdicts, lane->done) < 0))
        return -1;
    return 1;
}

static int append_to(PyObject *buffer, const Buffer *out) {
    Py_ssize_t size = PyByteArray_GET_SIZE(buffer);
    if (PyByteArray_Resize(buffer, size + (Py_ssize_t)out->size) < 0)
        return -1;
    memcpy(PyByteArray_AS_STRING(buffer) + size, out->bytes, out->size);
    return 0;
}

/* Takes a book apart; references are borrowed, but for `highest`.  -1 with an exception. */
static int open_book(Run *run) {
    Lane *lane = run->lane;
    if ((PyObject *)Py_TYPE(run->book) != lane->book_type) {
        PyErr_SetString(PyExc_TypeError, "a run needs a book");
        return -1;
    }
    PyObject *parts[PARTS];
    for (int part = 0; part < PARTS; part++) {
        parts[part] = at_offset(run->book, lane->parts[part]);
        if (parts[part] == NULL) {
            PyErr_Format(PyExc_TypeError, "a book has no %s", part_names[part]);
            return -1;
        }
    }
    run->accounts = parts[ACCOUNTS];
    run->add = parts[ADD];
    run->candidates = parts[CANDIDATES];
    run->seed = parts[SEED];
    run->changed = (PyObject *)Py_TYPE(parts[SLOT]) == lane->slot_type
                       ? at_offset(parts[SLOT], lane->changed)
                       : NULL;
    if (run->changed == NULL || !PyList_CheckExact(run->changed) ||
        !PyDict_CheckExact(run->accounts) || !PyUnicode_CheckExact(parts[HIGHEST])) {
        PyErr_SetString(PyExc_TypeError, "a book has a dict of accounts and a list of changes");
        return -1;
    }
    run->number = PyLong_AsLongLong(parts[NUMBER]);
    if (run->number == -1 && PyErr_Occurred())
        return -1;
    run->highest = Py_NewRef(parts[HIGHEST]);
    return 0;
}

/* The book's highest id; what it was before is given up. */
static void close_book(Run *run) {
    PyObject **highest = (PyObject **)((char *)run->book + run->lane->parts[HIGHEST]);
    PyObject *before = *highest;
    *highest = run->highest;
    run->highest = NULL;
    Py_XDECREF(before);
}

/* run(book, items, index, position, time, buffer, verdicts) -> items done, from `index` on. */
static PyObject *lane_run(Lane *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 7 || !PyList_CheckExact(args[1]) || !PyByteArray_CheckExact(args[5]) ||
        !PyList_CheckExact(args[6])) {
        PyErr_SetString(PyExc_TypeError, "a run takes a book, items, numbers and two outputs");
        return NULL;
    }
    Run run = {.lane = self, .book = args[0], .verdicts = args[6]};
    Py_ssize_t first = PyLong_AsSsize_t(args[2]), index = first;
    run.position = PyLong_AsLongLong(args[3]);
    run.time = PyLong_AsLongLong(args[4]);
    if (PyErr_Occurred() || open_book(&run) < 0)
        return NULL;
    if (index < 0) {
        Py_DECREF(run.highest);
        PyErr_SetString(PyExc_IndexError, "a run begins at an item");
        return NULL;
    }
    int state = 1;
    /* The list is asked anew for each item: what is called below might change it. */
    while (state > 0 && index < PyList_GET_SIZE(args[1])) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(args[1], index));
        state = execute(&run, item);
        Py_DECREF(item);
        index += state > 0;
    }
    if (state >= 0 && index > first) {
        close_book(&run);
        state = append_to(args[5], &run.out);
    }
    Py_XDECREF(run.highest);
    PyMem_Free(run.out.bytes);
    return state < 0 ? NULL : PyLong_FromSsize_t(index - first);
}

/* An attribute that is an integer of one word; -1 with an exception. */
static int word_of(PyObject *holder, PyObject *name, long long *word) {
    PyObject *value = PyObject_GetAttr(holder, name);
    if (value == NULL)
        return -1;
    *word = PyLong_AsLongLong(value);
    Py_DECREF(value);
    return *word == -1 && PyErr_Occurred() ? -1 : 0;
}

static int set_part(Run *run, int part, long long word) {
    PyObject **slot = (PyObject **)((char *)run->book + run->lane->parts[part]);
    PyObject *value = PyLong_FromLongLong(word), *before = *slot;
    if (value == NULL)
        return -1;
    *slot = value;
    Py_XDECREF(before);
    return 0;
}

/* The first event of a command: what the one before left is history now. */
static int begin_command(Run *run, long long offset) {
    PyObject *recent = at_offset(run->book, run->lane->parts[RECENT]);
    if (recent == NULL || !PyList_CheckExact(recent)) {
        PyErr_SetString(PyExc_TypeError, "a book has a list of recent events");
        return -1;
    }
    if (set_part(run, OFFSET, offset) < 0 ||
        set_part(run, BASE, offset << run->lane->index_bits) < 0)
        return -1;
    return PyList_SetSlice(recent, 0, PyList_GET_SIZE(recent), NULL);
}

static PyObject *result_of(Lane *self, PyObject *item) {
    PyObject *args[2] = {at_offset(item, self->offsets[ID]), self->status};
    return PyObject_Vectorcall(self->result_type, args, 2, NULL);
}

/* (results, their msgpack, the events' msgpack) of a command of this one item, which was done. */
static PyObject *answer_of(Run *run, PyObject *item) {
    Lane *self = run->lane;
    Py_ssize_t size, head = PyBytes_GET_SIZE(self->head), tail = PyBytes_GET_SIZE(self->tail);
    const char *text = PyUnicode_AsUTF8AndSize(at_offset(item, self->offsets[ID]), &size);
    Buffer raw = {NULL, 0, 0};
    if (text == NULL || reserve(&raw, (size_t)(head + size + tail) + 5) < 0)
        return NULL;
    memcpy(raw.bytes, PyBytes_AS_STRING(self->head), (size_t)head);
    raw.size = (size_t)head;
    PyObject *results = NULL, *encoded = NULL, *events = NULL, *answer = NULL;
    if (put_text(&raw, text, (size_t)size) == 0 && reserve(&raw, (size_t)tail) == 0) {
        memcpy(raw.bytes + raw.size, PyBytes_AS_STRING(self->tail), (size_t)tail);
        raw.size += (size_t)tail;
        encoded = PyBytes_FromStringAndSize((const char *)raw.bytes, (Py_ssize_t)raw.size);
    }
    PyMem_Free(raw.bytes);
    PyObject *list = PyList_New(1), *one = list == NULL ? NULL : result_of(self, item);
    if (one != NULL) {
        PyList_SET_ITEM(list, 0, one);
        results = PyObject_CallOneArg(self->results_type, list);
    }
    Py_XDECREF(list);
    events = PyBytes_FromStringAndSize((const char *)run->out.bytes, (Py_ssize_t)run->out.size);
    if (results != NULL && encoded != NULL && events != NULL)
        answer = PyTuple_Pack(3, results, encoded, events);
    Py_XDECREF(results);
    Py_XDECREF(encoded);
    Py_XDECREF(events);
    return answer;
}

/* The only item of a command that asks for nothing else; borrowed, NULL for all others. */
static PyObject *only_item(Lane *self, PyObject *data) {
    if ((PyObject *)Py_TYPE(data) != self->data_type)
        return NULL;
    PyObject *items = at_offset(data, self->members[TRANSFERS]);
    if (at_offset(data, self->members[VERSIONS]) != Py_None ||
        at_offset(data, self->members[DRY_RUN]) != Py_False || items == NULL ||
        !PyList_CheckExact(items) || PyList_GET_SIZE(items) != 1)
        return NULL;
    return PyList_GET_ITEM(items, 0);
}

/* single(book, data, at) -> (results, their msgpack, the events' msgpack); None: nothing done. */
static PyObject *lane_single(Lane *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "a single item takes a book, data and a place");
        return NULL;
    }
    PyObject *item = only_item(self, args[1]);
    if (item == NULL)
        Py_RETURN_NONE;
    Run run = {.lane = self, .book = args[0]};
    long long offset;
    if (word_of(args[2], str_offset, &offset) < 0 || word_of(args[2], str_time, &run.time) < 0 ||
        open_book(&run) < 0)
        return NULL;
    PyObject *answer = NULL;
    int state = -1;
    Py_INCREF(item);
    if (offset < 0 || offset >> (62 - self->index_bits) != 0)
        PyErr_SetString(PyExc_OverflowError, "a position is below 2^62");
    else if (reserve(&run.out, 160) == 0) {
        run.position = offset << self->index_bits;
        run.out.bytes[run.out.size++] = 0x91; /* an array of one event */
        state = execute(&run, item);
    }
    if (state > 0) {
        close_book(&run);
        if (begin_command(&run, offset) == 0)
            answer = answer_of(&run, item);
    } else if (state == 0)
        answer = Py_NewRef(Py_None);
    Py_DECREF(item);
    Py_XDECREF(run.highest);
    PyMem_Free(run.out.bytes);
    return answer;
}

/* --- recorded events --- */

typedef struct {
    const unsigned char *at, *end;
} Reader;

/* What follows as an integer of one word: 1, or 0 when it is something else. */
static int read_integer(Reader *in, long long *value) {
    if (in->at >= in->end)
        return 0;
    unsigned char code = *in->at++;
    if (code < 0x80 || code >= 0xe0) {
        *value = (signed char)code;
        return 1;
    }
    if (code < 0xcc || code > 0xd3)
        return 0;
    int width = 1 << ((code - 0xcc) & 3);
    if (in->end - in->at < width)
        return 0;
    unsigned long long bits = code >= 0xd0 && *in->at & 0x80 ? ~0ULL : 0;
    for (int byte = 0; byte < width; byte++)
        bits = bits << 8 | *in->at++;
    *value = (long long)bits;
    return code != 0xcf || *value >= 0;
}

/* What follows as text, its bytes in place: 1, or 0 when it is something else. */
static int read_text(Reader *in, const char **text, Py_ssize_t *size) {
    if (in->at >= in->end)
        return 0;
    unsigned char code = *in->at++;
    int width = code == 0xd9 ? 1 : code == 0xda ? 2 : code == 0xdb ? 4 : 0;
    if ((width == 0 && (code & 0xe0) != 0xa0) || in->end - in->at < width)
        return 0;
    Py_ssize_t length = width ? 0 : code & 0x1f;
    for (int byte = 0; byte < width; byte++)
        length = length << 8 | *in->at++;
    if (in->end - in->at < length)
        return 0;
    *text = (const char *)in->at;
    *size = length;
    in->at += length;
    return 1;
}

static int skip_nil(Reader *in) {
    if (in->at >= in->end || *in->at != 0xc0)
        return 0;
    in->at++;
    return 1;
}

/* Goes over None, ASCII text or, where they may be, integers; whatever else: 0. */
static int skip_value(Reader *in, int integers) {
    long long word;
    const char *text;
    Py_ssize_t size;
    Reader start = *in;
    if (skip_nil(in) || (integers && read_integer(in, &word)))
        return 1;
    *in = start;
    if (!read_text(in, &text, &size))
        return 0;
    for (Py_ssize_t at = 0; at < size; at++)
        if (text[at] & 0x80)
            return 0;
    return 1;
}

/* How many events an array holds; 0 when it is none. */
static Py_ssize_t read_count(Reader *in) {
    Py_ssize_t left = in->end - in->at, count = 0;
    unsigned char code = left > 0 ? *in->at++ : 0;
    int width = code == 0xdc ? 2 : code == 0xdd ? 4 : 0;
    if ((code & 0xf0) == 0x90)
        return code & 0x0f;
    if (width == 0 || left <= width)
        return 0;
    for (int byte = 0; byte < width; byte++)
        count = count << 8 | *in->at++;
    return count;
}

enum { BOOK, MOVED, SOURCE_BALANCE, TARGET_BALANCE, SOURCE_VERSION, TARGET_VERSION, SOURCE_HEAD, TARGET_HEAD,
       WHEN, NUMBERS };

/* A `Transferred` as it is recorded, its names in place. */
typedef struct {
    long long numbers[NUMBERS], moment;
    const char *names[3]; /* of the transfer, its source and its target */
    Py_ssize_t sizes[3];
} Recorded;

static int read_recorded(Reader *in, Recorded *event) {
    static const unsigned char head[] = {0xdc, 0, 16, 1}; /* an array of the tag and 15 fields */
    if (in->end - in->at < 4 || memcmp(in->at, head, 4) != 0)
        return 0;
    in->at += 4;
    if (!read_integer(in, &event->numbers[BOOK]))
        return 0;
    for (int name = 0; name < 3; name++)
        if (!read_text(in, &event->names[name], &event->sizes[name]))
            return 0;
    for (int number = MOVED; number < NUMBERS; number++)
        if (!read_integer(in, &event->numbers[number]))
            return 0;
    event->moment = event->numbers[WHEN];
    return (skip_nil(in) || read_integer(in, &event->moment)) && skip_value(in, 1) && skip_value(in, 0);
}

/* Whether an account reaches the values of its event by this amount. */
static int reaches(const Account *account, long long amount, long long balance, long long version, long long head,
                   long long fast_end) {
    return account->balance.big == NULL && balance > -fast_end && balance < fast_end &&
           account->balance.word == balance - amount && account->version == version - 1 && account->head == head;
}

/* One recorded event, perhaps the last: 1 = evolved, 0 = left and nothing was changed, -1 = failed. */
static int evolve_recorded(Run *run, Reader *in, int last) {
    Recorded event;
    if (!read_recorded(in, &event) || (last && in->at != in->end))
        return 0;
    const long long *number = event.numbers, fast_end = run->lane->fast_end;
    if (number[BOOK] != run->number || number[MOVED] <= 0 || number[MOVED] >= fast_end)
        return 0;
    PyObject *names[3] = {NULL, NULL, NULL}, *hash = NULL;
    int done = 0;
    for (int name = 0; name < 3; name++) {
        names[name] = PyUnicode_DecodeUTF8(event.names[name], event.sizes[name], NULL);
        if (names[name] == NULL)
            goto end;
    }
    Account *source = account_of(run, names[1]), *target = source == NULL ? NULL : account_of(run, names[2]);
    if (target == NULL || source == target ||
        !reaches(source, -number[MOVED], number[SOURCE_BALANCE], number[SOURCE_VERSION], number[SOURCE_HEAD],
                 fast_end) ||
        !reaches(target, number[MOVED], number[TARGET_BALANCE], number[TARGET_VERSION], number[TARGET_HEAD],
                 fast_end))
        goto end;
    Move move = {source, target, number[SOURCE_BALANCE], number[TARGET_BALANCE], number[SOURCE_VERSION],
                 number[TARGET_VERSION], event.moment};
    hash = hash_of(run, names[0]);
    if (hash != NULL)
        done = settle(run, &move, names[0], hash, PyUnicode_Compare(names[0], run->highest) > 0) < 0 ? -1 : 1;
end:
    Py_XDECREF(hash);
    for (int name = 0; name < 3; name++)
        Py_XDECREF(names[name]);
    if (done == 0 && PyErr_Occurred()) {
        /* Text that is no UTF-8 is for the decoder to refuse; anything else is an error. */
        if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
            return -1;
        PyErr_Clear();
    }
    return done;
}

/* The events of one outcome from the run's position on: 1 = all evolved, 0 = `events` of them, -1 = failed. */
static int evolve_outcome(Run *run, PyObject *outcome, long long offset, Py_ssize_t *events) {
    Lane *lane = run->lane;
    if ((PyObject *)Py_TYPE(outcome) != lane->outcome_type)
        return 0;
    PyObject *members[OUTCOME_MEMBERS];
    for (int member = 0; member < OUTCOME_MEMBERS; member++) {
        members[member] = at_offset(outcome, lane->outcome_members[member]);
        if (members[member] == NULL)
            return 0;
    }
    int overflow = 0;
    if (!PyLong_Check(members[OUTCOME_OFFSET]) || !PyLong_Check(members[OUTCOME_STATUS]) ||
        PyLong_AsLongLongAndOverflow(members[OUTCOME_OFFSET], &overflow) != offset ||
        PyLong_AsLongLongAndOverflow(members[OUTCOME_STATUS], &overflow) != 0 || overflow)
        return 0;
    Py_buffer view;
    if (PyObject_GetBuffer(members[OUTCOME_EVENTS], &view, PyBUF_SIMPLE) < 0)
        return -1;
    Reader in = {view.buf, (const unsigned char *)view.buf + view.len};
    Py_ssize_t count = read_count(&in);
    int state = count > 0;
    run->position = offset << lane->index_bits;
    while (state > 0 && *events < count) {
        state = evolve_recorded(run, &in, *events + 1 == count);
        *events += state > 0;
    }
    PyBuffer_Release(&view);
    return state;
}

/* recorded(book, outcomes, index, end, at) -> (outcomes evolved, events evolved of the next one). */
static PyObject *lane_recorded(Lane *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 5 || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "recorded events are those of a book and a list of outcomes");
        return NULL;
    }
    Run run = {.lane = self, .book = args[0]};
    Py_ssize_t first = PyLong_AsSsize_t(args[2]), end = PyLong_AsSsize_t(args[3]), done = 0, events = 0;
    long long offset;
    if (PyErr_Occurred() || word_of(args[4], str_offset, &offset) < 0)
        return NULL;
    if (first < 0 || end > PyList_GET_SIZE(args[1]) || offset < 0 ||
        (offset + (end - first)) >> (62 - self->index_bits) != 0) {
        PyErr_SetString(PyExc_OverflowError, "outcomes are in their list, and a position is below 2^62");
        return NULL;
    }
    if (open_book(&run) < 0)
        return NULL;
    int state = 1;
    while (state > 0 && first + done < end && first + done < PyList_GET_SIZE(args[1])) {
        PyObject *outcome = Py_NewRef(PyList_GET_ITEM(args[1], first + done));
        events = 0;
        state = evolve_outcome(&run, outcome, offset + done, &events);
        Py_DECREF(outcome);
        done += state > 0;
    }
    if (state > 0)
        events = 0;
    if (state >= 0 && (done > 0 || events > 0)) {
        close_book(&run);
        if (begin_command(&run, offset + done - (events == 0)) < 0)
            state = -1;
    }
    Py_XDECREF(run.highest);
    return state < 0 ? NULL : Py_BuildValue("(nn)", done, events);
}

/* Whether an item is canonical as it came: names, an amount of one word, no business time. */
static int is_canonical(Lane *self, PyObject *item) {
    if ((PyObject *)Py_TYPE(item) != self->item_type)
        return 0;
    static const int named[] = {ID, SOURCE, TARGET};
    for (int at = 0; at < 3; at++) {
        PyObject *text = at_offset(item, self->offsets[named[at]]);
        if (text == NULL || !is_name(text))
            return 0;
    }
    PyObject *amount = at_offset(item, self->offsets[AMOUNT]);
    if (at_offset(item, self->offsets[EFFECTIVE]) != Py_None || amount == NULL ||
        !PyLong_CheckExact(amount))
        return 0;
    int overflow = 0;
    long long word = PyLong_AsLongLongAndOverflow(amount, &overflow);
    return !overflow && word > -self->fast_end && word < self->fast_end;
}

/* canonical(data): whether preparing the command would check everything and change nothing. */
static PyObject *lane_canonical(Lane *self, PyObject *data) {
    if ((PyObject *)Py_TYPE(data) != self->data_type)
        Py_RETURN_FALSE;
    PyObject *items = at_offset(data, self->members[TRANSFERS]);
    if (at_offset(data, self->members[VERSIONS]) != Py_None || items == NULL ||
        !PyList_CheckExact(items))
        Py_RETURN_FALSE;
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(items); at++)
        if (!is_canonical(self, PyList_GET_ITEM(items, at)))
            Py_RETURN_FALSE;
    Py_RETURN_TRUE;
}

/* results(items, verdicts) -> the results; None unless the lane has done all the items. */
static PyObject *lane_results(Lane *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_CheckExact(args[0]) || !PyList_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "results are those of a list of items and verdicts");
        return NULL;
    }
    PyObject *items = args[0], *verdicts = args[1];
    Py_ssize_t count = PyList_GET_SIZE(items);
    if (PyList_GET_SIZE(verdicts) != count)
        Py_RETURN_NONE;
    for (Py_ssize_t at = 0; at < count; at++)
        if (PyList_GET_ITEM(verdicts, at) != self->done ||
            (PyObject *)Py_TYPE(PyList_GET_ITEM(items, at)) != self->item_type)
            Py_RETURN_NONE;
    PyObject *results = PyList_New(count);
    for (Py_ssize_t at = 0; results != NULL && at < count; at++) {
        PyObject *one = result_of(self, PyList_GET_ITEM(items, at));
        if (one == NULL)
            Py_CLEAR(results);
        else
            PyList_SET_ITEM(results, at, one);
    }
    return results;
}

/* Where a field stands within an item, from its member descriptor. */
static Py_ssize_t offset_of(PyObject *type, const char *name) {
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    Py_ssize_t offset = -1;
    if (descriptor == NULL)
        return -1;
    if (Py_IS_TYPE(descriptor, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)descriptor)->d_member;
        if (member->type == T_OBJECT_EX || member->type == T_OBJECT)
            offset = member->offset;
    }
    Py_DECREF(descriptor);
    if (offset < 0)
        PyErr_Format(PyExc_TypeError, "%s is no plain slot of %R", name, type);
    return offset;
}

static PyObject *lane_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"item_type", "book_type",    "slot_type", "data_type", "result_type",
                            "results_type", "outcome_type", "hash", "done",     "status",    "head",
                            "tail",      "fast_end",     "anchor_mask", "index_bits", NULL};
    PyObject *item_type, *book_type, *slot_type, *data_type, *result_type, *results_type, *outcome_type;
    PyObject *hash, *done, *status, *head, *tail;
    long long fast_end, anchor_mask;
    int index_bits;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "O!O!O!O!O!O!O!OOUSSLLi", names, &PyType_Type, &item_type, &PyType_Type,
            &book_type, &PyType_Type, &slot_type, &PyType_Type, &data_type, &PyType_Type,
            &result_type, &PyType_Type, &results_type, &PyType_Type, &outcome_type, &hash, &done, &status, &head, &tail,
            &fast_end, &anchor_mask, &index_bits))
        return NULL;
    if (index_bits < 0 || index_bits > 61) {
        PyErr_SetString(PyExc_ValueError, "a position has room for an offset and an index");
        return NULL;
    }
    Lane *self = (Lane *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->item_type = Py_NewRef(item_type);
    self->book_type = Py_NewRef(book_type);
    self->slot_type = Py_NewRef(slot_type);
    self->data_type = Py_NewRef(data_type);
    self->result_type = Py_NewRef(result_type);
    self->results_type = Py_NewRef(results_type);
    self->outcome_type = Py_NewRef(outcome_type);
    self->hash = Py_NewRef(hash);
    self->done = Py_NewRef(done);
    self->status = Py_NewRef(status);
    self->head = Py_NewRef(head);
    self->tail = Py_NewRef(tail);
    self->fast_end = fast_end;
    self->anchor_mask = anchor_mask;
    self->index_bits = index_bits;
    int known = (self->changed = offset_of(slot_type, "changed")) >= 0;
    for (int field = 0; known && field < FIELDS; field++)
        known = (self->offsets[field] = offset_of(item_type, field_names[field])) >= 0;
    for (int part = 0; known && part < PARTS; part++)
        known = (self->parts[part] = offset_of(book_type, part_names[part])) >= 0;
    for (int member = 0; known && member < MEMBERS; member++)
        known = (self->members[member] = offset_of(data_type, member_names[member])) >= 0;
    for (int member = 0; known && member < OUTCOME_MEMBERS; member++)
        known = (self->outcome_members[member] = offset_of(outcome_type, outcome_names[member])) >= 0;
    if (!known)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void lane_dealloc(Lane *self) {
    PyTypeObject *type = Py_TYPE(self);
    Py_CLEAR(self->item_type);
    Py_CLEAR(self->book_type);
    Py_CLEAR(self->slot_type);
    Py_CLEAR(self->data_type);
    Py_CLEAR(self->result_type);
    Py_CLEAR(self->results_type);
    Py_CLEAR(self->outcome_type);
    Py_CLEAR(self->hash);
    Py_CLEAR(self->done);
    Py_CLEAR(self->status);
    Py_CLEAR(self->head);
    Py_CLEAR(self->tail);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef lane_methods[] = {
    {"run", (PyCFunction)(void (*)(void))lane_run, METH_FASTCALL,
     "run(book, items, index, position, time, buffer, verdicts) -> items done from index on."},
    {"single", (PyCFunction)(void (*)(void))lane_single, METH_FASTCALL,
     "single(book, data, at) -> (results, their msgpack, events' msgpack); None: nothing done."},
    {"recorded", (PyCFunction)(void (*)(void))lane_recorded, METH_FASTCALL,
     "recorded(book, outcomes, index, end, at) -> (outcomes evolved, events evolved of the next)."},
    {"canonical", (PyCFunction)lane_canonical, METH_O,
     "canonical(data): whether preparing it would check everything and change nothing."},
    {"results", (PyCFunction)(void (*)(void))lane_results, METH_FASTCALL,
     "results(items, verdicts) -> the results; None unless the lane has done all the items."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lane_slots[] = {
    {Py_tp_doc, "Executes runs of ordinary transfers."},
    {Py_tp_methods, lane_methods},
    {Py_tp_new, lane_new},
    {Py_tp_dealloc, lane_dealloc},
    {0, NULL},
};

static PyType_Spec lane_spec = {
    .name = "ultraengine.domains.ledger._lane.Lane",
    .basicsize = sizeof(Lane),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = lane_slots,
};

/* names_hold(items, fields): whether every named attribute of every item is a name. */
static PyObject *names_hold(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2 || !PyList_CheckExact(args[0]) || !PyTuple_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "names are looked for in a list, by a tuple of fields");
        return NULL;
    }
    for (Py_ssize_t at = 0; at < PyList_GET_SIZE(args[0]); at++) {
        for (Py_ssize_t field = 0; field < PyTuple_GET_SIZE(args[1]); field++) {
            PyObject *text =
                PyObject_GetAttr(PyList_GET_ITEM(args[0], at), PyTuple_GET_ITEM(args[1], field));
            if (text == NULL)
                return NULL;
            int holds = is_name(text);
            Py_DECREF(text);
            if (!holds)
                Py_RETURN_FALSE;
        }
    }
    Py_RETURN_TRUE;
}

static PyMethodDef functions[] = {
    {"names_hold", (PyCFunction)(void (*)(void))names_hold, METH_FASTCALL,
     "names_hold(items, fields): whether every named attribute of every item is a name."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_lane", "The ledger's fast lane.", -1, functions,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__lane(void) {
    PyObject *made = PyModule_Create(&module);
    str_offset = PyUnicode_InternFromString("offset");
    str_time = PyUnicode_InternFromString("time");
    PyObject *lane = PyType_FromSpec(&lane_spec);
    account_type = (PyTypeObject *)PyType_FromSpec(&account_spec);
    if (made == NULL || str_offset == NULL || str_time == NULL || lane == NULL || account_type == NULL ||
        PyModule_AddObjectRef(made, "AccountFields", (PyObject *)account_type) < 0 ||
        PyModule_AddObjectRef(made, "Lane", lane) < 0) {
        Py_XDECREF(made);
        made = NULL;
    }
    Py_XDECREF(lane);
    return made;
}
