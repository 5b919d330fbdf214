/* The two hot methods of `packed.PackedIndex`, and the fields that they need.
 *
 * `packed.py` is the reference: the same structure, byte for byte, and everything that is not
 * called once per command (splits, cuts, scans, dumps).  Rules: no memory of its own but the
 * fields; every object that is reached through a field is checked before it is used.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

typedef struct {
    PyObject_HEAD
    PyObject *keys;   /* list of bytearray: hashes of 8 bytes in insertion order */
    PyObject *values; /* list of array('Q') */
    long long half, wide, limit, count, last;
} Core;

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

static PyMethodDef core_methods[] = {
    {"add", (PyCFunction)(void (*)(void))core_add, METH_FASTCALL,
     "Append one entry.  Raises what `_refuse` raises unless the value is above all before."},
    {"candidates", (PyCFunction)core_candidates, METH_O,
     "The values added with this hash, newest first."},
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
