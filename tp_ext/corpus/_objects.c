/* The texts of JSON lines, cut out of a block and unescaped: what objects.py does with numpy and a parser, for the lines
   where nothing is out of the ordinary. Of any other line it says only that it is not certain. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define DEEPEST 64
#define MOST_DIGITS 256

typedef struct {
    const uint8_t *at, *end; /* of the line that is read */
} Cursor;

static void skip_space(Cursor *c)
{
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\r' || *c->at == '\n'))
        c->at++;
}

/* Whether the next byte, after white space, is `byte`, which is then passed. */
static int passes(Cursor *c, uint8_t byte)
{
    skip_space(c);
    if (c->at == c->end || *c->at != byte)
        return 0;
    c->at++;
    return 1;
}

/* The four hexadecimal digits at the cursor, which are passed; -1 where they are none. */
static int hexadecimal(Cursor *c)
{
    int value = 0;
    if (c->end - c->at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        uint8_t d = *c->at++;
        if (d >= '0' && d <= '9')
            value = value << 4 | (d - '0');
        else if ((d | 32) >= 'a' && (d | 32) <= 'f')
            value = value << 4 | ((d | 32) - 'a' + 10);
        else
            return -1;
    }
    return value;
}

/* UTF-8 of a code point; the place behind it. */
static uint8_t *encode(uint8_t *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = code;
    } else if (code < 0x800) {
        *out++ = 0xC0 | code >> 6;
        *out++ = 0x80 | (code & 0x3F);
    } else if (code < 0x10000) {
        *out++ = 0xE0 | code >> 12;
        *out++ = 0x80 | (code >> 6 & 0x3F);
        *out++ = 0x80 | (code & 0x3F);
    } else {
        *out++ = 0xF0 | code >> 18;
        *out++ = 0x80 | (code >> 12 & 0x3F);
        *out++ = 0x80 | (code >> 6 & 0x3F);
        *out++ = 0x80 | (code & 0x3F);
    }
    return out;
}

/* Pass an escape whose backslash was passed. With `out` its meaning is written there, and halves of a pair that stand
   alone, which UTF-8 has no form for, are not passed. The place behind what was written; NULL where it is no escape. */
static uint8_t *escape(Cursor *c, uint8_t *out, uint8_t *nowhere)
{
    static const char signs[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    uint8_t *to = out ? out : nowhere;
    if (c->at == c->end)
        return NULL;
    uint8_t sign = *c->at++;
    if (sign != 'u') {
        const char *known = sign ? strchr(signs, sign) : NULL;
        if (!known)
            return NULL;
        *to = meant[known - signs];
        return to + 1;
    }
    int code = hexadecimal(c);
    if (code < 0)
        return NULL;
    if (out && code >= 0xD800 && code < 0xE000) {
        if (code >= 0xDC00 || c->end - c->at < 6 || c->at[0] != '\\' || c->at[1] != 'u')
            return NULL;
        c->at += 2;
        int low = hexadecimal(c);
        if (low < 0xDC00 || low >= 0xE000)
            return NULL;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    return encode(to, code);
}

/* Pass a string whose opening quote was passed, and its closing one; with `out` the text is written there. The place
   behind it, any other than NULL without `out`; NULL where it is no string. */
static uint8_t *string(Cursor *c, uint8_t *out)
{
    uint8_t nowhere[8], *to = out;
    while (c->at < c->end) {
        const uint8_t *begin = c->at;
        while (c->at < c->end && *c->at != '"' && *c->at != '\\' && *c->at >= ' ')
            c->at++;
        if (out) {
            memcpy(to, begin, c->at - begin);
            to += c->at - begin;
        }
        if (c->at == c->end || *c->at < ' ')
            return NULL;
        if (*c->at++ == '"')
            return out ? to : (uint8_t *)c->at;
        uint8_t *behind = escape(c, to, nowhere);
        if (!behind)
            return NULL;
        if (out)
            to = behind;
    }
    return NULL;
}

static int digits(Cursor *c)
{
    const uint8_t *begin = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9')
        c->at++;
    return c->at > begin && c->at - begin < MOST_DIGITS;
}

static int number(Cursor *c)
{
    if (c->at < c->end && *c->at == '-')
        c->at++;
    int zero = c->at < c->end && *c->at == '0';
    const uint8_t *begin = c->at;
    if (!digits(c) || (zero && c->at - begin > 1))
        return 0;
    if (c->at < c->end && *c->at == '.') {
        c->at++;
        if (!digits(c))
            return 0;
    }
    if (c->at < c->end && (*c->at | 32) == 'e') {
        c->at++;
        if (c->at < c->end && (*c->at == '+' || *c->at == '-'))
            c->at++;
        return digits(c);
    }
    return 1;
}

static int word(Cursor *c, const char *expected)
{
    Py_ssize_t length = strlen(expected);
    if (c->end - c->at < length || memcmp(c->at, expected, length))
        return 0;
    c->at += length;
    return 1;
}

/* Pass a value; 0 where it is none, or one that is left to a parser. */
static int value(Cursor *c, int depth)
{
    skip_space(c);
    if (c->at == c->end || depth > DEEPEST)
        return 0;
    uint8_t first = *c->at;
    if (first == '"') {
        c->at++;
        return string(c, NULL) != NULL;
    }
    if (first == 't' || first == 'f' || first == 'n')
        return word(c, first == 't' ? "true" : first == 'f' ? "false" : "null");
    if (first != '{' && first != '[')
        return number(c);
    uint8_t last = first + 2; /* ']' and '}' in ASCII */
    c->at++;
    if (passes(c, last))
        return 1;
    do {
        if (first == '{' && !(passes(c, '"') && string(c, NULL) && passes(c, ':')))
            return 0;
        if (!value(c, depth + 1))
            return 0;
    } while (passes(c, ','));
    return passes(c, last);
}

/* The text under `key` of the object that is the whole line, written to `out`: the place behind it. NULL where the line is
   no object, has no such text or several, a key with escapes, or anything that is left to a parser. */
static uint8_t *text_of(Cursor *c, const char *key, Py_ssize_t key_length, uint8_t *out)
{
    uint8_t *behind = NULL;
    if (!passes(c, '{'))
        return NULL;
    do {
        if (!passes(c, '"'))
            return NULL;
        const uint8_t *name = c->at;
        if (!string(c, NULL))
            return NULL;
        Py_ssize_t length = c->at - 1 - name;
        if (memchr(name, '\\', length) || !passes(c, ':'))
            return NULL;
        if (length == key_length && !memcmp(name, key, length)) {
            if (behind || !passes(c, '"') || !(behind = string(c, out)))
                return NULL;
        } else if (!value(c, 1)) {
            return NULL;
        }
    } while (passes(c, ','));
    if (!passes(c, '}'))
        return NULL;
    skip_space(c);
    return c->at == c->end ? behind : NULL;
}

static PyObject *texts(PyObject *self, PyObject *args)
{
    Py_buffer content, key, lines[2], found[3];
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*w*w*", &content, &key, &lines[0], &lines[1], &found[0], &found[1], &found[2]))
        return NULL;
    Py_ssize_t count = lines[0].len / sizeof(int64_t);
    const int64_t *starts = lines[0].buf, *stops = lines[1].buf;
    int64_t *text_starts = found[0].buf, *text_stops = found[1].buf;
    uint8_t *certain = found[2].buf;
    PyObject *result = PyBytes_FromStringAndSize(NULL, content.len); /* a text is never longer than its line */
    if (result) {
        uint8_t *base = (uint8_t *)PyBytes_AS_STRING(result), *out = base;
        Py_BEGIN_ALLOW_THREADS
        for (Py_ssize_t i = 0; i < count; i++) {
            Cursor cursor = {(const uint8_t *)content.buf + starts[i], (const uint8_t *)content.buf + stops[i]};
            uint8_t *behind = text_of(&cursor, key.buf, key.len, out);
            certain[i] = behind != NULL;
            text_starts[i] = out - base;
            out = behind ? behind : out;
            text_stops[i] = out - base;
        }
        Py_END_ALLOW_THREADS
        _PyBytes_Resize(&result, out - base);
    }
    PyBuffer_Release(&content);
    PyBuffer_Release(&key);
    for (int i = 0; i < 2; i++)
        PyBuffer_Release(&lines[i]);
    for (int i = 0; i < 3; i++)
        PyBuffer_Release(&found[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"texts", texts, METH_VARARGS,
     "texts(content, key, starts, stops, text_starts, text_stops, certain): the texts; the last three are written."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_objects", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__objects(void)
{
    return PyModule_Create(&definition);
}
