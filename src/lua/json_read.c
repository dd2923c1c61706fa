/* json_read.c -- JSON text becomes a Lua value: jansson parses, the tree is then walked.
 *
 * The tree belongs to C while the walk allocates in Lua, which may raise: so the walk is a protected
 * call, and the tree is freed after it in any case. */
#include "json.h"

#include <jansson.h>

typedef struct reader {
    json_t *root;
    int depth;
    fpc_status status; /* why the walk ended early */
} reader;

static bool push_json(reader *r, lua_State *L, int marks, json_t *json);

static bool push_array(reader *r, lua_State *L, int marks, json_t *array) {
    size_t n = json_array_size(array);
    lua_createtable(L, n < INT32_MAX ? (int)n : 0, 0);
    if (n == 0) {
        lua_rawgeti(L, marks, 1);
        lua_setmetatable(L, -2);
    }
    for (size_t i = 0; i < n; i++) {
        if (!push_json(r, L, marks, json_array_get(array, i))) return false;
        lua_rawseti(L, -2, (int)(i + 1));
    }
    return true;
}

static bool push_object(reader *r, lua_State *L, int marks, json_t *object) {
    size_t n = json_object_size(object);
    lua_createtable(L, 0, n < INT32_MAX ? (int)n : 0);
    for (void *at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        lua_pushlstring(L, json_object_iter_key(at), json_object_iter_key_len(at));
        if (!push_json(r, L, marks, json_object_iter_value(at))) return false;
        lua_rawset(L, -3);
    }
    return true;
}

/* Pushes one value; or returns false with r->status set and anything pushed. */
static bool push_json(reader *r, lua_State *L, int marks, json_t *json) {
    switch (json_typeof(json)) {
    case JSON_NULL: lua_pushlightuserdata(L, NULL); return true;
    case JSON_TRUE: lua_pushboolean(L, 1); return true;
    case JSON_FALSE: lua_pushboolean(L, 0); return true;
    case JSON_INTEGER: fpc_lua_push_int64(L, json_integer_value(json)); return true;
    case JSON_REAL: lua_pushnumber(L, json_real_value(json)); return true;
    case JSON_STRING: lua_pushlstring(L, json_string_value(json), json_string_length(json)); return true;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    if (r->depth == FPC_JSON_DEPTH)
        r->status = FPC_INVALID;
    else if (!lua_checkstack(L, 12))
        r->status = FPC_NOMEM;
    if (r->status != FPC_OK) return false;
    r->depth++;
    bool done = json_is_array(json) ? push_array(r, L, marks, json) : push_object(r, L, marks, json);
    r->depth--;
    return done;
}

static int push_body(lua_State *L) {
    reader *r = lua_touserdata(L, 1);
    fpc_lua_json_push_marks(L);
    push_json(r, L, 2, r->root);
    return 1;
}

/* jansson's own words hold a piece of the text, which is private. */
static const char *reason(const json_error_t *error) {
    switch (json_error_code(error)) {
    case json_error_stack_overflow: return "tables nested too deep";
    case json_error_premature_end_of_input: return "it ends too early";
    case json_error_end_of_input_expected: return "it goes on after its end";
    case json_error_invalid_utf8: return "not UTF-8";
    case json_error_null_byte_in_key: return "a key with a NUL byte";
    case json_error_numeric_overflow: return "a number out of range";
    default: return "a syntax error";
    }
}

bool fpc_lua_json_push(lua_State *L, const char *text, size_t len, fpc_error *err) {
    json_error_t error;
    reader r = {0};
    if (!lua_checkstack(L, 4)) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    r.root = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (r.root == NULL) {
        /* Where jansson has no memory for a container it says nothing at all. */
        if (error.text[0] == '\0' || json_error_code(&error) == json_error_out_of_memory)
            return fpc_fail(err, FPC_NOMEM, "JSON of %zu bytes", len), false;
        fpc_fail(err, FPC_INVALID, "not JSON that can be read: %s (at byte %d of %zu)", reason(&error),
                 error.position, len);
        return false;
    }
    lua_pushcfunction(L, push_body);
    lua_pushlightuserdata(L, &r);
    int failed = lua_pcall(L, 1, 1, 0);
    json_decref(r.root);
    if (failed) lua_error(L); /* Lua's memory, or the finalizer of somebody's object */
    if (r.status == FPC_OK) return true;
    lua_pop(L, 1);
    if (r.status == FPC_NOMEM) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    fpc_fail(err, FPC_INVALID, "not JSON that can be read: tables nested deeper than %d", FPC_JSON_DEPTH);
    return false;
}
