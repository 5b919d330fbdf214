/* `encode` of `rows.py`, which is the reference and describes the format.
 *
 * Rules: same bytes, same refusals (ValueError); no state between calls.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define TIME_ORIGIN 946684800000000LL
#define DATE_ORIGIN 10957LL
#define BASE 10000
#define GROUPS_MAX 15 /* digits to the base 10,000 of a total */
#define AMOUNT "an amount is an integer below 10^38 in size"
#define TOTAL "a total is an integer below 10^57 in size"
#define AMOUNT_END "1" ZEROS_19 ZEROS_19
#define TOTAL_END "1" ZEROS_19 ZEROS_19 ZEROS_19
#define ZEROS_19 "0000000000000000000"
#define FIELD_MAX 64  /* bytes of any field but texts and bytes, with its length */

typedef struct {
    char *start, *at, *end;
} Buffer;

static int reserve(Buffer *buffer, Py_ssize_t bytes) {
    if (buffer->end - buffer->at >= bytes)
        return 0;
    Py_ssize_t used = buffer->at - buffer->start, size = (buffer->end - buffer->start) * 2;
    if (size < used + bytes)
        size = used + bytes;
    char *moved = PyMem_Realloc(buffer->start, (size_t)size);
    if (moved == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    buffer->start = moved;
    buffer->at = moved + used;
    buffer->end = moved + size;
    return 0;
}

static void put(Buffer *buffer, unsigned long long value, int bytes) {
    for (int byte = bytes - 1; byte >= 0; byte--)
        *buffer->at++ = (char)(value >> (8 * byte) & 0xff);
}

static int refuse(const char *what, PyObject *value) {
    PyErr_Format(PyExc_ValueError, "%s: %.200R", what, value);
    return -1;
}

/* A length and bytes of any number. */
static int put_bytes(Buffer *buffer, const char *bytes, Py_ssize_t size) {
    if (size > INT32_MAX - 8) {
        PyErr_SetString(PyExc_ValueError, "a value is beyond the size of a message");
        return -1;
    }
    if (reserve(buffer, size + 4) < 0)
        return -1;
    put(buffer, (unsigned long long)size, 4);
    memcpy(buffer->at, bytes, (size_t)size);
    buffer->at += size;
    return 0;
}

static int put_text(Buffer *buffer, PyObject *value) {
    if (!PyUnicode_Check(value))
        return refuse("a text is expected", (PyObject *)Py_TYPE(value));
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    /* A lone surrogate has none; UnicodeEncodeError is a ValueError. */
    return text == NULL ? -1 : put_bytes(buffer, text, size);
}

static void put_numeric(Buffer *buffer, const int *groups, int count, int negative) {
    int weight = count > 0 ? count - 1 : 0, kept = count;
    while (kept > 0 && groups[count - kept] == 0) /* the lowest groups stand first */
        kept--;
    put(buffer, (unsigned long long)(8 + 2 * kept), 4);
    put(buffer, (unsigned long long)kept, 2);
    put(buffer, (unsigned long long)weight, 2);
    put(buffer, negative ? 0x4000 : 0, 2);
    put(buffer, 0, 2);
    for (int group = count - 1; group >= count - kept; group--)
        put(buffer, (unsigned long long)groups[group], 2);
}

/* Whether an integer is below an end in size; -1 with an exception. */
static int is_below(PyObject *value, const char *limit) {
    int within = -1;
    PyObject *end = PyLong_FromString(limit, NULL, 10);
    PyObject *size = PyNumber_Absolute(value);
    if (end != NULL && size != NULL)
        within = PyObject_RichCompareBool(size, end, Py_LT);
    Py_XDECREF(end);
    Py_XDECREF(size);
    return within;
}

/* An integer beyond 64 bits, by its decimal digits. */
static int put_wide(Buffer *buffer, PyObject *value, const char *limit, const char *what) {
    int within = is_below(value, limit), groups[GROUPS_MAX], count = 0;
    if (within < 0)
        return -1;
    if (within == 0) {
        PyErr_SetString(PyExc_ValueError, what);
        return -1;
    }
    PyObject *written = PyNumber_ToBase(value, 10);
    if (written == NULL)
        return -1;
    Py_ssize_t size;
    const char *digits = PyUnicode_AsUTF8AndSize(written, &size);
    if (digits == NULL) {
        Py_DECREF(written);
        return -1;
    }
    int negative = digits[0] == '-';
    digits += negative;
    size -= negative;
    for (Py_ssize_t end = size; end > 0 && count < GROUPS_MAX; end -= 4) {
        int group = 0;
        for (Py_ssize_t at = end > 4 ? end - 4 : 0; at < end; at++)
            group = group * 10 + (digits[at] - '0');
        groups[count++] = group;
    }
    Py_DECREF(written);
    put_numeric(buffer, groups, count, negative);
    return 0;
}

static int put_amount(Buffer *buffer, PyObject *value, const char *limit, const char *what) {
    if (!PyLong_Check(value)) {
        PyErr_SetString(PyExc_ValueError, what);
        return -1;
    }
    int overflow, groups[GROUPS_MAX], count = 0;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow)
        return put_wide(buffer, value, limit, what);
    unsigned long long rest = number < 0 ? 0 - (unsigned long long)number : (unsigned long long)number;
    for (; rest; rest /= BASE)
        groups[count++] = (int)(rest % BASE);
    put_numeric(buffer, groups, count, number < 0);
    return 0;
}

/* An integer of 64 bits less `origin`; -1 with ValueError when it is none. */
static int integer_of(PyObject *value, long long origin, const char *what, long long *number) {
    if (!PyLong_Check(value))
        return refuse(what, value);
    int overflow;
    *number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow || __builtin_sub_overflow(*number, origin, number)) {
        PyErr_Format(PyExc_ValueError, "%s", what);
        return -1;
    }
    return 0;
}

static int put_field(Buffer *buffer, char kind, PyObject *value) {
    long long number;
    if (reserve(buffer, FIELD_MAX) < 0)
        return -1;
    if (value == Py_None) {
        put(buffer, 0xffffffff, 4);
        return 0;
    }
    switch (kind) {
    case 't':
        return put_text(buffer, value);
    case 'a':
        return put_amount(buffer, value, AMOUNT_END, AMOUNT);
    case 'w':
        return put_amount(buffer, value, TOTAL_END, TOTAL);
    case 'i':
        if (integer_of(value, 0, "an integer of 64 bits is expected", &number) < 0)
            return -1;
        put(buffer, 8, 4);
        put(buffer, (unsigned long long)number, 8);
        return 0;
    case 'm':
        if (integer_of(value, TIME_ORIGIN, "a time is an integer within its range", &number) < 0)
            return -1;
        put(buffer, 8, 4);
        put(buffer, (unsigned long long)number, 8);
        return 0;
    case 'd':
        if (integer_of(value, DATE_ORIGIN, "a date is an integer within its range", &number) < 0)
            return -1;
        if (number < INT32_MIN || number > INT32_MAX)
            return refuse("a date is beyond its range", value);
        put(buffer, 4, 4);
        put(buffer, (unsigned long long)number, 4);
        return 0;
    case 'b':
        if (!PyBool_Check(value))
            return refuse("a truth is expected", (PyObject *)Py_TYPE(value));
        put(buffer, 1, 4);
        put(buffer, value == Py_True, 1);
        return 0;
    case 'y':
        if (!PyBytes_Check(value))
            return refuse("bytes are expected", (PyObject *)Py_TYPE(value));
        return put_bytes(buffer, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    default:
        PyErr_SetString(PyExc_KeyError, "no column is encoded so");
        return -1;
    }
}

static int put_row(Buffer *buffer, PyObject *first, PyObject *columns, PyObject *row) {
    PyObject *values = PySequence_Fast(row, "a row is a sequence");
    if (values == NULL)
        return -1;
    Py_ssize_t count = PyBytes_GET_SIZE(columns), size = PyBytes_GET_SIZE(first);
    int failed = -1;
    if (PySequence_Fast_GET_SIZE(values) != count) {
        PyErr_Format(PyExc_ValueError, "a row has %zd values for %zd columns",
                     PySequence_Fast_GET_SIZE(values), count);
    } else if (reserve(buffer, size) == 0) {
        memcpy(buffer->at, PyBytes_AS_STRING(first), (size_t)size);
        buffer->at += size;
        failed = 0;
    }
    /* Writing a huge number out may run Python code, so the size is asked for each time. */
    for (Py_ssize_t at = 0; !failed && at < count && at < PySequence_Fast_GET_SIZE(values); at++)
        failed = put_field(buffer, PyBytes_AS_STRING(columns)[at], PySequence_Fast_GET_ITEM(values, at));
    Py_DECREF(values);
    return failed;
}

static PyObject *encode(PyObject *module, PyObject *args) {
    PyObject *first, *columns, *rows;
    (void)module;
    if (!PyArg_ParseTuple(args, "SSO", &first, &columns, &rows))
        return NULL;
    PyObject *all = PySequence_Fast(rows, "rows are a sequence");
    if (all == NULL)
        return NULL;
    Buffer buffer = {NULL, NULL, NULL};
    int failed = reserve(&buffer, PySequence_Fast_GET_SIZE(all) * 64 + FIELD_MAX);
    for (Py_ssize_t at = 0; !failed && at < PySequence_Fast_GET_SIZE(all); at++)
        failed = put_row(&buffer, first, columns, PySequence_Fast_GET_ITEM(all, at));
    PyObject *encoded =
        failed ? NULL : PyBytes_FromStringAndSize(buffer.start, buffer.at - buffer.start);
    PyMem_Free(buffer.start);
    Py_DECREF(all);
    return encoded;
}

static PyMethodDef methods[] = {
    {"encode", encode, METH_VARARGS,
     "The rows, each begun with `first`; `columns` are their kinds.  Raises ValueError."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_rows", "`encode` of `rows.py`.", -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__rows(void) {
    return PyModule_Create(&module);
}
