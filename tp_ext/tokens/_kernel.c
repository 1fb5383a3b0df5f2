/* Cutting a text and looking up its segments, and copying ids together: numpy_scan.py in C. It is built where there is a
   compiler, and gives what that gives; what is not known yet is learnt in Python either way. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "keys are little-endian words"
#endif

#define MOST_WORDS 4
#define WORD 8
#define HIGHEST 0x10FFFF

typedef struct { /* table.py: keys by word and slot, the number of each slot, 0 for an empty one */
    const uint64_t *keys[MOST_WORDS];
    const uint32_t *numbers;
    uint64_t last;
    int shift;
} Table;

/* The bytes of the character at `text`; its code point, never above HIGHEST, goes to `code`. */
static inline int decode(const uint8_t *text, uint32_t *code)
{
    uint32_t c = text[0];
    int length = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (length == 2)
        c = (c & 0x1F) << 6 | (text[1] & 0x3F);
    else if (length == 3)
        c = (c & 0x0F) << 12 | (text[1] & 0x3Fu) << 6 | (text[2] & 0x3F);
    else if (length == 4)
        c = (c & 0x07) << 18 | (text[1] & 0x3Fu) << 12 | (text[2] & 0x3Fu) << 6 | (text[3] & 0x3F);
    *code = c > HIGHEST ? HIGHEST : c;
    return length;
}

/* The number of the segment text[:length], 0 where it is not known. */
static uint32_t find(const Table *tables, const uint64_t *factors, const uint8_t *text, Py_ssize_t length)
{
    Py_ssize_t words = (length + WORD - 1) / WORD, rest = length - (words - 1) * WORD;
    uint64_t key[MOST_WORDS], mixed = 0;
    if (words > MOST_WORDS)
        return 0;
    memcpy(key, text, words * WORD); /* what is behind the segment is covered by the next line */
    if (rest < WORD)
        key[words - 1] |= ~(uint64_t)0 << 8 * rest;
    for (int word = 0; word < words; word++)
        mixed ^= key[word] * factors[word];
    const Table *table = &tables[words - 1];
    for (uint64_t slot = mixed >> table->shift;; slot = (slot + 1) & table->last) {
        if (!table->numbers[slot])
            return 0;
        int word = 0;
        while (word < words && table->keys[word][slot] == key[word])
            word++;
        if (word == words)
            return table->numbers[slot];
    }
}

/* Tables of 1, 2, ... words out of a list of buffers: for each its keys, word by word, and its numbers. */
static void read_tables(const Py_buffer *buffers, Table *tables)
{
    for (int words = 1; words <= MOST_WORDS; words++) {
        Table *table = &tables[words - 1];
        for (int word = 0; word < words; word++)
            table->keys[word] = (buffers++)->buf;
        table->numbers = buffers->buf;
        table->last = buffers->len / sizeof(uint32_t) - 1;
        table->shift = 64 - __builtin_popcountll(table->last);
        buffers++;
    }
}

enum { CONTENT, PLACES, BARE, LEFT, RIGHT, FREE, SINGLE, FACTORS, EDGES, NUMBERS, FIRSTS, TABLES };
#define BUFFERS (TABLES + MOST_WORDS * (MOST_WORDS + 3) / 2)

static Py_ssize_t scan_text(const Py_buffer *buffers, Py_ssize_t size)
{
    const uint8_t *text = buffers[CONTENT].buf, *bare = buffers[BARE].buf, *free_bits = buffers[FREE].buf;
    const int64_t *places = buffers[PLACES].buf;
    const int32_t *left = buffers[LEFT].buf, *right = buffers[RIGHT].buf;
    const uint32_t *single = buffers[SINGLE].buf;
    int64_t *edges = buffers[EDGES].buf, *firsts = buffers[FIRSTS].buf;
    uint32_t *numbers = buffers[NUMBERS].buf;
    uint32_t left_last = buffers[LEFT].len / sizeof(int32_t) - 1, right_last = buffers[RIGHT].len / sizeof(int32_t) - 1;
    Py_ssize_t places_num = buffers[PLACES].len / sizeof(int64_t), document = 0, segments = 0, start = 0, at = 0;
    Py_ssize_t forced = -1; /* an edge behind the space of a bare stretch */
    Table tables[MOST_WORDS];
    uint32_t code, next_code = 0;

    read_tables(buffers + TABLES, tables);
    int length = decode(text, &code);
    while (at < size) {
        if (document < places_num && at == places[document]) {
            firsts[document] = segments;
            forced = bare[document++] ? at + 1 : -1;
        }
        Py_ssize_t next = at + length < size ? at + length : size;
        if (next < size)
            length = decode(text + next, &next_code);
        uint32_t border = left[code < left_last ? code : left_last] + right[next_code < right_last ? next_code : right_last];
        if (next == size || next == forced || (document < places_num && next == places[document])
            || (free_bits[border >> 3] >> (border & 7) & 1)) {
            edges[segments] = start;
            numbers[segments++] = start == at ? single[code] : find(tables, buffers[FACTORS].buf, text + start, next - start);
            start = next;
        }
        at = next;
        code = next_code;
    }
    edges[segments] = size;
    return segments;
}

/* All buffers of a sequence; on an error none. */
static int take_buffers(PyObject *objects, Py_buffer *buffers, int count)
{
    if (PySequence_Size(objects) != count) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "another number of buffers is wanted");
        return 0;
    }
    for (int taken = 0; taken < count; taken++) {
        PyObject *object = PySequence_GetItem(objects, taken);
        int failed = object == NULL || PyObject_GetBuffer(object, &buffers[taken], PyBUF_SIMPLE) < 0;
        Py_XDECREF(object);
        if (failed) {
            while (taken--)
                PyBuffer_Release(&buffers[taken]);
            return 0;
        }
    }
    return 1;
}

static PyObject *scan(PyObject *module, PyObject *args)
{
    PyObject *objects;
    Py_ssize_t size, found = -1;
    Py_buffer buffers[BUFFERS];
    if (!PyArg_ParseTuple(args, "On", &objects, &size) || !take_buffers(objects, buffers, BUFFERS))
        return NULL;
    if (size < 1 || size + WORD > buffers[CONTENT].len || buffers[EDGES].len < (size + 1) * WORD
        || buffers[NUMBERS].len < size * 4 || buffers[FIRSTS].len < buffers[PLACES].len)
        PyErr_SetString(PyExc_ValueError, "a buffer is too small for the text");
    else
        found = scan_text(buffers, size);
    for (int each = 0; each < BUFFERS; each++)
        PyBuffer_Release(&buffers[each]);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

/* counts[i] items from each place begins[i] of `ids` to `out`, one after the other. */
static PyObject *gather(PyObject *module, PyObject *args)
{
    PyObject *objects;
    Py_ssize_t width;
    Py_buffer buffers[4];
    if (!PyArg_ParseTuple(args, "On", &objects, &width) || !take_buffers(objects, buffers, 4))
        return NULL;
    const uint8_t *ids = buffers[0].buf;
    const int64_t *begins = buffers[1].buf, *counts = buffers[2].buf;
    uint8_t *out = buffers[3].buf, *end = out + buffers[3].len;
    Py_ssize_t places = buffers[0].len / width, segments = buffers[2].len / sizeof(int64_t), at = 0;
    for (; at < segments; at++) {
        int64_t bytes = counts[at] * width;
        if (begins[at] < 0 || counts[at] < 0 || begins[at] + counts[at] > places || bytes > end - out)
            break;
        const uint8_t *from = ids + begins[at] * width;
        if (bytes <= WORD && end - out >= WORD && (places - begins[at]) * width >= WORD)
            memcpy(out, from, WORD); /* faster than as many as are wanted; the next ones go over the rest */
        else
            memcpy(out, from, bytes);
        out += bytes;
    }
    if (at < segments)
        PyErr_SetString(PyExc_ValueError, "ids are wanted from or for a place outside");
    for (int each = 0; each < 4; each++)
        PyBuffer_Release(&buffers[each]);
    if (at < segments)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"scan", scan, METH_VARARGS, "scan(buffers, size): the number of segments; their edges and numbers are written."},
    {"gather", gather, METH_VARARGS, "gather((ids, begins, counts, out), itemsize): ids are written."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void)
{
    return PyModule_Create(&definition);
}
