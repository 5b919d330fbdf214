/* The hot methods of `packed.PackedIndex`, and the fields that they need.
 *
 * `packed.py` is the reference: the same structure, byte for byte, and everything that is neither
 * called once per command nor walks through all entries (splits, cuts, loads).  Rules: no memory of
 * its own but the fields; every object that is reached through a field is checked before it is used.
 *
 * `gather` runs in the forked child of a snapshot, where every write copies a page.  So it reads
 * buckets where they lie and takes no reference to any, and no buffer of an array, whose count of
 * exports stands beside its reference count.  Where an array keeps its items is private to the
 * interpreter: it is tried at import, and an interpreter that differs gets plain Python.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <limits.h>

typedef struct {
    PyObject_HEAD
    PyObject *keys;   /* list of bytearray: hashes of 8 bytes in insertion order */
    PyObject *values; /* list of array('Q') */
    long long half, wide, limit, count, last;
} Core;

/* The head of an `array.array`, the same in every CPython since 3.2. */
typedef struct {
    PyObject_VAR_HEAD
    char *items;
    Py_ssize_t allocated;
    const void *descriptor; /* one per type code */
} ArrayHead;

typedef struct {
    unsigned long long mirrored, value;
} Pair;

static PyTypeObject *array_type;
static const void *array_of_q;
static unsigned char reversed_bits[256];
static PyObject *str_append, *str_refuse, *str_split;

static PyMemberDef core_members[] = {
    {"_keys", T_OBJECT_EX, offsetof(Core, keys), 0, NULL},
    {"_values", T_OBJECT_EX, offsetof(Core, values), 0, NULL},
    {"_half", T_LONGLONG, offsetof(Core, half), 0, NULL},
    {"_wide", T_LONGLONG, offsetof(Core, wide), 0, NULL},
    {"_limit", T_LONGLONG, offsetof(Core, limit), 0, NULL},
    {"_count", T_LONGLONG, offsetof(Core, count), 0, NULL},
    {"_last", T_LONGLONG, offsetof(Core, last), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int core_traverse(Core *self, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->keys);
    Py_VISIT(self->values);
    return 0;
}

static int core_clear(Core *self) {
    Py_CLEAR(self->keys);
    Py_CLEAR(self->values);
    return 0;
}

static void core_dealloc(Core *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    core_clear(self);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The hash as a number, its bytes taken as little-endian. */
static unsigned long long number_of(const unsigned char *hash) {
    unsigned long long number = 0;
    for (int byte = 7; byte >= 0; byte--)
        number = number << 8 | hash[byte];
    return number;
}

/* Finds the bucket of a hash; borrowed references.  -1 with an exception when it cannot. */
static int bucket_of(Core *self, PyObject *identity, PyObject **keys, PyObject **values) {
    if (!PyBytes_CheckExact(identity) || PyBytes_GET_SIZE(identity) != 8) {
        PyErr_SetString(PyExc_TypeError, "a hash is 8 bytes");
        return -1;
    }
    if (self->keys == NULL || self->values == NULL || !PyList_CheckExact(self->keys) ||
        !PyList_CheckExact(self->values)) {
        PyErr_SetString(PyExc_TypeError, "a packed index has lists of buckets");
        return -1;
    }
    Py_ssize_t size = PyList_GET_SIZE(self->keys);
    unsigned long long hash = number_of((const unsigned char *)PyBytes_AS_STRING(identity));
    Py_ssize_t number = (Py_ssize_t)(hash & (unsigned long long)self->wide);
    if (number >= size)
        number -= (Py_ssize_t)self->half;
    if (number < 0 || number >= size || number >= PyList_GET_SIZE(self->values)) {
        PyErr_SetString(PyExc_IndexError, "no bucket has this number");
        return -1;
    }
    *keys = PyList_GET_ITEM(self->keys, number);
    *values = PyList_GET_ITEM(self->values, number);
    if (!PyByteArray_CheckExact(*keys)) {
        PyErr_SetString(PyExc_TypeError, "a bucket of hashes is a bytearray");
        return -1;
    }
    return 0;
}

static PyObject *core_add(Core *self, PyObject *const *args, Py_ssize_t nargs) {
    PyObject *keys, *values;
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "an entry is a hash and a value");
        return NULL;
    }
    long long value = PyLong_AsLongLong(args[1]);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    if (value <= self->last)
        return PyObject_CallMethodOneArg((PyObject *)self, str_refuse, args[1]);
    if (bucket_of(self, args[0], &keys, &values) < 0)
        return NULL;
    Py_ssize_t size = PyByteArray_GET_SIZE(keys);
    if (PyByteArray_Resize(keys, size + 8) < 0)
        return NULL;
    memcpy(PyByteArray_AS_STRING(keys) + size, PyBytes_AS_STRING(args[0]), 8);
    PyObject *done = PyObject_CallMethodOneArg(values, str_append, args[1]);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    self->last = value;
    self->count++;
    if (self->count > self->limit) {
        done = PyObject_CallMethodNoArgs((PyObject *)self, str_split);
        if (done == NULL)
            return NULL;
        Py_DECREF(done);
    }
    Py_RETURN_NONE;
}

static PyObject *core_candidates(Core *self, PyObject *identity) {
    PyObject *keys, *values;
    if (bucket_of(self, identity, &keys, &values) < 0)
        return NULL;
    const char *hashes = PyByteArray_AS_STRING(keys), *hash = PyBytes_AS_STRING(identity);
    Py_ssize_t entries = PyByteArray_GET_SIZE(keys) / 8, hits = 0;
    for (Py_ssize_t at = 0; at < entries; at++)
        hits += memcmp(hashes + at * 8, hash, 8) == 0;
    PyObject *found = PyTuple_New(hits);
    if (found == NULL || hits == 0)
        return found;
    Py_ssize_t filled = 0;
    for (Py_ssize_t at = entries - 1; at >= 0 && filled < hits; at--) {
        if (memcmp(hashes + at * 8, hash, 8) != 0)
            continue;
        PyObject *value = PySequence_GetItem(values, at);
        if (value == NULL) {
            Py_DECREF(found);
            return NULL;
        }
        PyTuple_SET_ITEM(found, filled++, value);
    }
    return found;
}

static int by_mirror(const void *left, const void *right) {
    const Pair *a = left, *b = right;
    if (a->mirrored != b->mirrored)
        return a->mirrored < b->mirrored ? -1 : 1;
    return a->value < b->value ? -1 : a->value > b->value;
}

/* First place of `count` ascending integers that is not below `bound`. */
static Py_ssize_t first_from(const unsigned long long *values, Py_ssize_t count, unsigned long long bound) {
    Py_ssize_t low = 0, high = count;
    while (low < high) {
        Py_ssize_t middle = (low + high) / 2;
        if (values[middle] < bound)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Entries of one bucket from `low` to `last`: their number, -1 with an exception for what is none. */
static Py_ssize_t range_of(PyObject *keys, PyObject *values, unsigned long long low, unsigned long long last,
                           Py_ssize_t *start) {
    if (!PyByteArray_CheckExact(keys) || Py_TYPE(values) != array_type ||
        ((ArrayHead *)values)->descriptor != array_of_q) {
        PyErr_SetString(PyExc_TypeError, "a bucket is a bytearray of hashes and an array of values");
        return -1;
    }
    Py_ssize_t count = Py_SIZE(values);
    if (PyByteArray_GET_SIZE(keys) != count * 8) {
        PyErr_SetString(PyExc_ValueError, "a bucket has as many hashes as values");
        return -1;
    }
    const unsigned long long *numbers = (const unsigned long long *)((ArrayHead *)values)->items;
    *start = first_from(numbers, count, low);
    Py_ssize_t end = last == ULLONG_MAX ? count : first_from(numbers, count, last + 1);
    return end < *start ? 0 : end - *start;
}

static void put(char *target, unsigned long long number, int big) {
    for (int byte = 0; byte < 8; byte++)
        target[big ? 7 - byte : byte] = (char)(number >> byte * 8);
}

/* Sorted pairs as (mirrored hashes, values); those below the cursor are left out. */
static PyObject *block_of(Pair *pairs, Py_ssize_t count, unsigned long long cursor) {
    qsort(pairs, (size_t)count, sizeof(Pair), by_mirror);
    Py_ssize_t skipped = 0;
    while (skipped < count && pairs[skipped].mirrored < cursor)
        skipped++;
    pairs += skipped;
    count -= skipped;
    PyObject *hashes = PyBytes_FromStringAndSize(NULL, count * 8);
    PyObject *values = PyBytes_FromStringAndSize(NULL, count * 8);
    if (hashes == NULL || values == NULL) {
        Py_XDECREF(hashes);
        Py_XDECREF(values);
        return NULL;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        put(PyBytes_AS_STRING(hashes) + at * 8, pairs[at].mirrored, 1);
        put(PyBytes_AS_STRING(values) + at * 8, pairs[at].value, 0);
    }
    return Py_BuildValue("(NN)", hashes, values);
}

/* A bound of values as the last one inside it; 0 entries are inside when the result is 0. */
static int last_before(PyObject *end, unsigned long long *last) {
    unsigned long long bound = PyLong_AsUnsignedLongLong(end);
    if (bound == ULLONG_MAX && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return -1;
        PyErr_Clear();
        *last = ULLONG_MAX;
        return 1;
    }
    *last = bound - 1;
    return bound > 0;
}

static PyObject *core_gather(Core *self, PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 5) {
        PyErr_SetString(PyExc_TypeError, "buckets, values and a cursor say what to gather");
        return NULL;
    }
    Py_ssize_t first = PyLong_AsSsize_t(args[0]), stride = PyLong_AsSsize_t(args[1]);
    unsigned long long low = PyLong_AsUnsignedLongLong(args[2]), last;
    int some = last_before(args[3], &last);
    unsigned long long cursor = PyLong_AsUnsignedLongLong(args[4]);
    if (some < 0 || PyErr_Occurred())
        return NULL;
    if (first < 0 || stride < 1 || self->keys == NULL || self->values == NULL ||
        !PyList_CheckExact(self->keys) || !PyList_CheckExact(self->values) ||
        PyList_GET_SIZE(self->keys) != PyList_GET_SIZE(self->values)) {
        PyErr_SetString(PyExc_ValueError, "a packed index has two lists of the same buckets");
        return NULL;
    }
    Py_ssize_t size = PyList_GET_SIZE(self->keys), total = 0, start, count;
    for (Py_ssize_t number = first; some && number < size; number += stride) {
        count = range_of(PyList_GET_ITEM(self->keys, number), PyList_GET_ITEM(self->values, number), low, last,
                         &start);
        if (count < 0)
            return NULL;
        total += count;
    }
    Pair *pairs = PyMem_Malloc((size_t)(total + 1) * sizeof(Pair));
    if (pairs == NULL)
        return PyErr_NoMemory();
    Py_ssize_t filled = 0;
    for (Py_ssize_t number = first; some && number < size; number += stride) {
        PyObject *keys = PyList_GET_ITEM(self->keys, number), *values = PyList_GET_ITEM(self->values, number);
        count = range_of(keys, values, low, last, &start);
        const unsigned char *hash = (const unsigned char *)PyByteArray_AS_STRING(keys) + start * 8;
        const unsigned long long *numbers = (const unsigned long long *)((ArrayHead *)values)->items + start;
        for (Py_ssize_t at = 0; at < count; at++, hash += 8) {
            unsigned long long mirrored = 0;
            for (int byte = 0; byte < 8; byte++)
                mirrored = mirrored << 8 | reversed_bits[hash[byte]];
            pairs[filled++] = (Pair){mirrored, numbers[at]};
        }
    }
    PyObject *block = block_of(pairs, filled, cursor);
    PyMem_Free(pairs);
    return block;
}

static int by_value(const void *left, const void *right) {
    const Pair *a = left, *b = right;
    if (a->value != b->value)
        return a->value < b->value ? -1 : 1;
    return a->mirrored < b->mirrored ? -1 : a->mirrored > b->mirrored;
}

/* Here a pair holds the hash as it is in memory, and the value as the machine writes it. */
static PyObject *core_arrange(PyObject *Py_UNUSED(self), PyObject *const *args, Py_ssize_t nargs) {
    if (nargs != 2 || !PyBytes_CheckExact(args[0]) || !PyBytes_CheckExact(args[1])) {
        PyErr_SetString(PyExc_TypeError, "hashes and values to be arranged are bytes");
        return NULL;
    }
    Py_ssize_t length = PyBytes_GET_SIZE(args[0]), count = length / 8;
    if (length % 8 || PyBytes_GET_SIZE(args[1]) != length) {
        PyErr_SetString(PyExc_ValueError, "a bucket has as many hashes as values");
        return NULL;
    }
    Pair *pairs = PyMem_Malloc((size_t)(count + 1) * sizeof(Pair));
    if (pairs == NULL)
        return PyErr_NoMemory();
    for (Py_ssize_t at = 0; at < count; at++) {
        memcpy(&pairs[at].mirrored, PyBytes_AS_STRING(args[0]) + at * 8, 8);
        memcpy(&pairs[at].value, PyBytes_AS_STRING(args[1]) + at * 8, 8);
    }
    qsort(pairs, (size_t)count, sizeof(Pair), by_value);
    PyObject *keys = PyBytes_FromStringAndSize(NULL, length);
    PyObject *values = PyBytes_FromStringAndSize(NULL, length);
    if (keys == NULL || values == NULL) {
        Py_XDECREF(keys);
        Py_XDECREF(values);
        PyMem_Free(pairs);
        return NULL;
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        memcpy(PyBytes_AS_STRING(keys) + at * 8, &pairs[at].mirrored, 8);
        memcpy(PyBytes_AS_STRING(values) + at * 8, &pairs[at].value, 8);
    }
    PyMem_Free(pairs);
    return Py_BuildValue("(NN)", keys, values);
}

/* Learns how this interpreter's arrays look; -1 with ImportError when not as described above. */
static int learn_arrays(void) {
    PyObject *arrays = PyImport_ImportModule("array"), *sample = NULL;
    Py_buffer view;
    int known = -1;
    if (arrays == NULL)
        return -1;
    sample = PyObject_CallMethod(arrays, "array", "s(ii)", "Q", 3, 5);
    if (sample != NULL && PyObject_GetBuffer(sample, &view, PyBUF_SIMPLE) == 0) {
        ArrayHead *head = (ArrayHead *)sample;
        array_type = Py_TYPE(sample);
        array_of_q = head->descriptor;
        if (head->items == view.buf && Py_SIZE(sample) == 2 && view.len == 16 && head->allocated >= 2)
            known = 0;
        else
            PyErr_SetString(PyExc_ImportError, "arrays of this interpreter look otherwise");
        PyBuffer_Release(&view);
    }
    Py_XINCREF(array_type);
    Py_XDECREF(sample);
    Py_DECREF(arrays);
    return known;
}

static PyMethodDef core_methods[] = {
    {"add", (PyCFunction)(void (*)(void))core_add, METH_FASTCALL,
     "Append one entry.  Raises what `_refuse` raises unless the value is above all before."},
    {"candidates", (PyCFunction)core_candidates, METH_O,
     "The values added with this hash, newest first."},
    {"arrange", (PyCFunction)(void (*)(void))core_arrange, METH_FASTCALL,
     "Entries of one bucket in the order of their values."},
    {"gather", (PyCFunction)(void (*)(void))core_gather, METH_FASTCALL,
     "Entries of some buckets in mirror order, as bytes."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot core_slots[] = {
    {Py_tp_doc, "Fields and hot methods of a packed index."},
    {Py_tp_members, core_members},
    {Py_tp_methods, core_methods},
    {Py_tp_traverse, core_traverse},
    {Py_tp_clear, core_clear},
    {Py_tp_dealloc, core_dealloc},
    {0, NULL},
};

static PyType_Spec core_spec = {
    .name = "ultraengine.execution._packed.PackedCore",
    .basicsize = sizeof(Core),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = core_slots,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_packed", "Hot methods of `packed.PackedIndex`.", -1, NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__packed(void) {
    for (int byte = 0; byte < 256; byte++)
        for (int bit = 0; bit < 8; bit++)
            reversed_bits[byte] |= (unsigned char)((byte >> bit & 1) << (7 - bit));
    if (learn_arrays() < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made == NULL)
        return NULL;
    str_append = PyUnicode_InternFromString("append");
    str_refuse = PyUnicode_InternFromString("_refuse");
    str_split = PyUnicode_InternFromString("_split");
    PyObject *type = PyType_FromSpec(&core_spec);
    if (str_append == NULL || str_refuse == NULL || str_split == NULL || type == NULL ||
        PyModule_AddObject(made, "PackedCore", type) < 0) {
        Py_DECREF(made);
        return NULL;
    }
    return made;
}
