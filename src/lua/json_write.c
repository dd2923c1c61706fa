/* json_write.c -- a Lua value becomes JSON text.
 *
 * The text grows in a buffer on the C stack and, when that is full, in a userdata that stands in one
 * stack slot.  So an error that Lua raises in the middle (no memory) leaves nothing to free.
 * A failure goes up through the calls, and each level puts its key before the path; the Lua stack is
 * left as it is until the top resets it, so that the keys are still there to be named. */
#include "json.h"
#include "number.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct writer {
    lua_State *L;
    int slot; /* stack index of the userdata that holds `data`, or of nil while `data` is `first` */
    char *data;
    size_t len, capacity;
    int marks;                        /* stack index of the set of array marks, 0: not yet fetched */
    fpc_status status;                /* of the failure that `reason` describes */
    int depth;                        /* tables that are open; their addresses follow */
    const void *open[FPC_JSON_DEPTH]; /* a table that is in here contains itself */
    char reason[160], path[160], first[1024];
    size_t path_start; /* the path is filled from its end to here */
    bool path_cut;     /* it begins with "..." */
} writer;

static bool write_value(writer *w, int index);

/* --- text --- */

static bool fail(writer *w, const char *reason) {
    snprintf(w->reason, sizeof w->reason, "%s", reason);
    return false;
}

/* Room for `more` bytes at data + len. */
static bool reserve(writer *w, size_t more) {
    if (w->capacity - w->len >= more) return true;
    if (more > FPC_JSON_BYTES - w->len) return fail(w, "a table of more than 1 GB as JSON cannot be stored");
    size_t capacity = w->capacity * 2;
    while (capacity < w->len + more) capacity *= 2;
    char *data = lua_newuserdata(w->L, capacity);
    memcpy(data, w->data, w->len);
    lua_replace(w->L, w->slot);
    w->data = data;
    w->capacity = capacity;
    return true;
}

static bool put(writer *w, const char *bytes, size_t len) {
    if (!reserve(w, len)) return false;
    memcpy(w->data + w->len, bytes, len);
    w->len += len;
    return true;
}

static bool put_char(writer *w, char c) {
    if (!reserve(w, 1)) return false;
    w->data[w->len++] = c;
    return true;
}

/* The length of the UTF-8 sequence (RFC 3629) at `s`, of at most `left` bytes; 0 when there is none. */
static size_t utf8_length(const unsigned char *s, size_t left) {
    unsigned char lead = s[0], low = 0x80, high = 0xBF;
    size_t len = 0;
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF)
        len = 2;
    else if (lead >= 0xE0 && lead <= 0xEF)
        len = 3;
    else if (lead >= 0xF0 && lead <= 0xF4)
        len = 4;
    if (len == 0 || len > left) return 0;
    if (lead == 0xE0) low = 0xA0;  /* shorter forms exist below */
    if (lead == 0xED) high = 0x9F; /* surrogates above */
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F; /* beyond U+10FFFF above */
    if (s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if (s[i] < 0x80 || s[i] > 0xBF) return 0;
    return len;
}

static bool put_escaped(writer *w, unsigned char c) {
    static const char HEX[] = "0123456789abcdef";
    char text[] = {'\\', 'u', '0', '0', HEX[c >> 4], HEX[c & 15]};
    switch (c) {
    case '\b': return put(w, "\\b", 2);
    case '\t': return put(w, "\\t", 2);
    case '\n': return put(w, "\\n", 2);
    case '\f': return put(w, "\\f", 2);
    case '\r': return put(w, "\\r", 2);
    case '"': return put(w, "\\\"", 2);
    case '\\': return put(w, "\\\\", 2);
    default: return put(w, text, sizeof text);
    }
}

static bool write_string(writer *w, const char *bytes, size_t len) {
    const unsigned char *s = (const unsigned char *)bytes;
    size_t done = 0; /* bytes before it are in the text */
    if (!put_char(w, '"')) return false;
    for (size_t i = 0; i < len;) {
        if (s[i] >= 0x20 && s[i] < 0x80 && s[i] != '"' && s[i] != '\\') {
            i++;
            continue;
        }
        if (s[i] >= 0x80) {
            size_t sequence = utf8_length(s + i, len - i);
            if (sequence == 0) {
                snprintf(w->reason, sizeof w->reason,
                         "a string of %zu bytes that is not UTF-8 cannot be stored in JSON: "
                         "store such bytes as a string of their own",
                         len);
                return false;
            }
            i += sequence;
            continue;
        }
        if (!put(w, bytes + done, i - done) || !put_escaped(w, s[i])) return false;
        done = ++i;
    }
    return put(w, bytes + done, len - done) && put_char(w, '"');
}

/* --- where a failure is --- */

static void prepend(writer *w, const char *text, size_t len) {
    static const char CUT[] = {'.', '.', '.'}; /* there is always room for it */
    if (w->path_cut) return;
    if (len + sizeof CUT > w->path_start) {
        w->path_cut = true;
        text = CUT;
        len = sizeof CUT;
    }
    w->path_start -= len;
    memcpy(w->path + w->path_start, text, len);
}

static bool fail_at_index(writer *w, size_t i) {
    char text[32];
    prepend(w, text, (size_t)snprintf(text, sizeof text, "[%zu]", i));
    return false;
}

/* `.name`, or `["any text"]` with what a log could not show replaced by '?'. */
static bool fail_at_key(writer *w, const char *key, size_t len) {
    enum { SHOWN = 40 };
    char text[SHOWN + 12];
    bool is_name = len > 0 && len <= SHOWN && !(key[0] >= '0' && key[0] <= '9');
    for (size_t i = 0; is_name && i < len; i++) {
        char c = key[i];
        is_name = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
    }
    if (is_name) {
        prepend(w, text, (size_t)snprintf(text, sizeof text, ".%.*s", (int)len, key));
        return false;
    }
    size_t out = 0, i = 0;
    text[out++] = '[';
    text[out++] = '"';
    while (i < len) {
        size_t sequence = utf8_length((const unsigned char *)key + i, len - i);
        if (i + sequence > SHOWN) break;
        if (sequence > 1 || (sequence == 1 && key[i] >= ' ' && key[i] != 0x7F)) {
            memcpy(text + out, key + i, sequence);
            out += sequence;
        } else {
            text[out++] = '?';
            sequence = 1;
        }
        i += sequence;
    }
    prepend(w, text, out + (size_t)snprintf(text + out, sizeof text - out, "%s\"]", i < len ? "..." : ""));
    return false;
}

/* --- tables --- */

/* Says why the keys of the table at `t` make neither an array nor an object. */
static bool fail_keys(writer *w, int t, bool marked) {
    lua_State *L = w->L;
    size_t strings = 0, integers = 0;
    int64_t largest = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        int type = lua_type(L, -2);
        int64_t i;
        if (type == LUA_TSTRING)
            strings++;
        else if (type == LUA_TNUMBER && fpc_lua_to_int64(L, -2, &i)) {
            if (integers++ == 0 || i > largest) largest = i;
        } else {
            snprintf(w->reason, sizeof w->reason, "a table with a key of type %s cannot be stored in JSON",
                     type == LUA_TNUMBER ? "float" : lua_typename(L, type));
            return false;
        }
    }
    if (marked && strings > 0) return fail(w, "a table marked as an array has string keys");
    if (strings > 0) return fail(w, "a table with both string and integer keys cannot be stored in JSON");
    snprintf(w->reason, sizeof w->reason,
             "a table with integer keys that are no sequence 1..n cannot be stored in JSON "
             "(%zu keys, the largest is %lld)",
             integers, (long long)largest);
    return false;
}

/* Whether the keys are exactly 1..n.  They are different, so it suffices that each is in that range
 * and that there are n of them. */
static bool is_sequence(lua_State *L, int t, size_t n) {
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, t); lua_pop(L, 1)) {
        int64_t i;
        if (lua_type(L, -2) != LUA_TNUMBER || !fpc_lua_to_int64(L, -2, &i) || i < 1 || (uint64_t)i > n) {
            lua_pop(L, 2);
            return false;
        }
        count++;
    }
    return count == n;
}

static bool write_array(writer *w, int t, bool marked) {
    size_t n = lua_rawlen(w->L, t);
    if (!is_sequence(w->L, t, n)) return fail_keys(w, t, marked);
    if (!put_char(w, '[')) return false;
    for (size_t i = 1; i <= n; i++) {
        if (i > 1 && !put_char(w, ',')) return false;
        lua_rawgeti(w->L, t, (int)i);
        if (!write_value(w, lua_gettop(w->L))) return fail_at_index(w, i);
        lua_pop(w->L, 1);
    }
    return put_char(w, ']');
}

static bool write_key(writer *w, const char *key, size_t len) {
    if (memchr(key, '\0', len) != NULL) return fail(w, "a key with a NUL byte cannot be stored in JSON");
    return write_string(w, key, len) && put_char(w, ':');
}

/* The first key and its value are on the stack. */
static bool write_object(writer *w, int t) {
    lua_State *L = w->L;
    const int key_index = lua_gettop(L) - 1;
    char before = '{';
    do {
        if (lua_type(L, key_index) != LUA_TSTRING) return fail_keys(w, t, false);
        size_t len;
        const char *key = lua_tolstring(L, key_index, &len);
        if (!put_char(w, before) || !write_key(w, key, len) || !write_value(w, key_index + 1))
            return fail_at_key(w, key, len);
        before = ',';
        lua_pop(L, 1);
    } while (lua_next(L, t));
    return put_char(w, '}');
}

/* Whether the value on top of the stack, which is popped, is one of the array marks. */
static bool pop_is_mark(writer *w) {
    if (w->marks == 0) { /* fetched at the first need: it stays below what the walk pushes and pops */
        fpc_lua_json_push_marks(w->L);
        lua_replace(w->L, w->slot + 1);
        w->marks = w->slot + 1;
    }
    lua_rawget(w->L, w->marks);
    bool found = !lua_isnil(w->L, -1);
    lua_pop(w->L, 1);
    return found;
}

static bool write_table(writer *w, int t) {
    lua_State *L = w->L;
    const void *address = lua_topointer(L, t);
    for (int i = 0; i < w->depth; i++)
        if (w->open[i] == address) return fail(w, "a table that contains itself cannot be stored");
    if (w->depth == FPC_JSON_DEPTH) {
        snprintf(w->reason, sizeof w->reason, "tables nested deeper than %d cannot be stored",
                 FPC_JSON_DEPTH);
        return false;
    }
    if (!lua_checkstack(L, 12)) {
        w->status = FPC_NOMEM;
        return fail(w, "Lua's stack is full");
    }
    w->open[w->depth++] = address;
    bool marked = lua_getmetatable(L, t) && pop_is_mark(w);
    lua_pushnil(L);
    bool done;
    if (!lua_next(L, t))
        done = put(w, marked ? "[]" : "{}", 2);
    else if (!marked && lua_type(L, -2) == LUA_TSTRING)
        done = write_object(w, t);
    else {
        lua_pop(L, 2);
        done = write_array(w, t, marked);
    }
    w->depth--;
    return done;
}

/* --- values --- */

static bool write_number(writer *w, int index) {
    char text[FPC_NUMBER_TEXT];
    int64_t integer;
    if (fpc_lua_to_int64(w->L, index, &integer)) return put(w, text, fpc_int64_text(integer, text));
    double number = lua_tonumber(w->L, index);
    if (isnan(number)) return fail(w, "NaN cannot be stored in JSON");
    if (isinf(number)) return fail(w, "an infinite number cannot be stored in JSON");
    return put(w, text, fpc_double_text(number, text));
}

static bool write_lightuserdata(writer *w, int index) {
    if (lua_touserdata(w->L, index) == NULL) return put(w, "null", 4);
    lua_pushvalue(w->L, index);
    if (pop_is_mark(w)) return put(w, "[]", 2);
    return fail(w, "a lightuserdata that is not null cannot be stored");
}

/* `index` is positive. */
static bool write_value(writer *w, int index) {
    lua_State *L = w->L;
    int type = lua_type(L, index);
    size_t len;
    const char *string;
    switch (type) {
    case LUA_TSTRING: string = lua_tolstring(L, index, &len); return write_string(w, string, len);
    case LUA_TNUMBER: return write_number(w, index);
    case LUA_TBOOLEAN: return lua_toboolean(L, index) ? put(w, "true", 4) : put(w, "false", 5);
    case LUA_TTABLE: return write_table(w, index);
    case LUA_TLIGHTUSERDATA: return write_lightuserdata(w, index);
    case LUA_TNIL: return fail(w, "nil cannot be stored");
    default: break;
    }
    char text[FPC_NUMBER_TEXT];
    int64_t integer;
    if (type == LUA_TCDATA_) {
        if (fpc_lua_to_int64(L, index, &integer)) return put(w, text, fpc_int64_text(integer, text));
        return fail(w, "cdata that is no integer of 64 bits with sign cannot be stored");
    }
    snprintf(w->reason, sizeof w->reason, "a %s cannot be stored", lua_typename(L, type));
    return false;
}

bool fpc_lua_json_write(lua_State *L, int index, const char **bytes, size_t *len, fpc_error *err) {
    writer w;
    index = lua_absindex(L, index);
    if (!lua_checkstack(L, 12)) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    w.L = L;
    w.slot = lua_gettop(L) + 1;
    w.data = w.first;
    w.len = 0;
    w.capacity = sizeof w.first;
    w.marks = w.depth = 0;
    w.status = FPC_INVALID;
    w.path_cut = false;
    w.path_start = sizeof w.path;
    lua_pushnil(L);
    lua_pushnil(L); /* slot + 1: the marks */
    if (!write_value(&w, index)) {
        size_t path_len = sizeof w.path - w.path_start;
        const char *path = w.path + w.path_start;
        if (path_len > 0 && !w.path_cut && path[0] == '.') path++, path_len--;
        if (path_len > 0)
            fpc_fail(err, w.status, "%s (at %.*s)", w.reason, (int)path_len, path);
        else
            fpc_fail(err, FPC_INVALID, "%s", w.reason);
        lua_settop(L, w.slot - 1);
        return false;
    }
    lua_settop(L, w.slot);
    if (w.data == w.first) {
        lua_pushlstring(L, w.data, w.len);
        lua_replace(L, w.slot);
        w.data = (char *)lua_tostring(L, w.slot);
    }
    *bytes = w.data;
    *len = w.len;
    return true;
}
