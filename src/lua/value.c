/* value.c -- bytes and format code of a Lua value, and back. */
#include "value.h"
#include "json.h"
#include "number.h"
#include "seal.h"
#include "types.h"

#include <math.h>
#include <string.h>

/* --- custom codecs --- */

/* (codec, function's name, argument) -> the two results of codec[name](argument) */
static int codec_body(lua_State *L) {
    lua_pushvalue(L, 2);
    lua_gettable(L, 1);
    lua_pushvalue(L, 3);
    lua_call(L, 1, 2);
    return 2;
}

/* codec.format, without raising on a codec that has none */
static int codec_format_body(lua_State *L) {
    lua_getfield(L, 1, "format");
    return 1;
}

static bool codec_writes_json(lua_State *L, int codec) {
    lua_pushcfunction(L, codec_format_body);
    lua_pushvalue(L, codec);
    bool json = lua_pcall(L, 1, 1, 0) == 0 && lua_type(L, -1) == LUA_TSTRING &&
                strcmp(lua_tostring(L, -1), "json") == 0;
    lua_pop(L, 1);
    return json;
}

/* The codec's own words, on one line as messages are. */
static void fail_in_words(fpc_error *err, const char *words) {
    if (err == NULL) return;
    fpc_fail(err, FPC_INVALID, "codec: %s", words);
    for (char *c = err->message; *c != '\0'; c++)
        if ((unsigned char)*c < ' ') *c = ' ';
}

/* Calls codec[name] with the value on top of the stack, which is replaced by the result; on failure
 * it is popped. */
static bool codec_call(lua_State *L, int codec, const char *name, fpc_error *err) {
    int top = lua_gettop(L) - 1;
    lua_pushcfunction(L, codec_body);
    lua_insert(L, -2);
    lua_pushvalue(L, codec);
    lua_insert(L, -2);
    lua_pushstring(L, name);
    lua_insert(L, -2);
    int failed = lua_pcall(L, 3, 2, 0);
    if (failed || lua_isnil(L, top + 1)) {
        int message = failed ? top + 1 : top + 2;
        if (failed == LUA_ERRMEM)
            fpc_fail(err, FPC_NOMEM, "codec: %s", name);
        else if (lua_type(L, message) == LUA_TSTRING)
            fail_in_words(err, lua_tostring(L, message));
        else if (failed)
            fpc_fail(err, FPC_INVALID, "codec: %s raised a %s", name, luaL_typename(L, message));
        else
            fpc_fail(err, FPC_INVALID, "codec: %s returned nil", name);
        lua_settop(L, top);
        return false;
    }
    lua_settop(L, top + 1);
    return true;
}

static bool encode_with_codec(lua_State *L, int index, int codec, const char **bytes, size_t *len,
                              char *format, fpc_error *err) {
    *format = codec_writes_json(L, codec) ? 'j' : 'x';
    lua_pushvalue(L, index);
    if (!codec_call(L, codec, "encode", err)) return false;
    if (lua_type(L, -1) != LUA_TSTRING) {
        fpc_fail(err, FPC_INVALID, "codec: encode returned a %s, not a string", luaL_typename(L, -1));
        lua_pop(L, 1);
        return false;
    }
    *bytes = lua_tolstring(L, -1, len);
    return true;
}

static bool decode_with_codec(lua_State *L, const char *bytes, size_t len, int codec, fpc_error *err) {
    lua_pushlstring(L, bytes, len);
    return codec_call(L, codec, "decode", err);
}

/* The absolute index of the codec, or 0. */
static int codec_at(lua_State *L, int codec_index) {
    if (codec_index == 0 || lua_isnoneornil(L, codec_index)) return 0;
    return lua_absindex(L, codec_index);
}

/* --- encode --- */

static void push_text(lua_State *L, const char *text, size_t text_len, const char **bytes, size_t *len) {
    lua_pushlstring(L, text, text_len);
    *bytes = lua_tolstring(L, -1, len);
}

static void encode_integer(lua_State *L, int64_t integer, const char **bytes, size_t *len, char *format) {
    char text[FPC_NUMBER_TEXT];
    *format = 'i';
    push_text(L, text, fpc_int64_text(integer, text), bytes, len);
}

static void encode_number(lua_State *L, int index, const char **bytes, size_t *len, char *format) {
    char text[FPC_NUMBER_TEXT];
    int64_t integer;
    if (fpc_lua_to_int64(L, index, &integer)) {
        encode_integer(L, integer, bytes, len, format);
        return;
    }
    *format = 'f';
    push_text(L, text, fpc_double_text(lua_tonumber(L, index), text), bytes, len);
}

/* A text of the program's own needs nothing to keep it alive; nil is pushed in its place. */
static void encode_constant(lua_State *L, const char *text, char code, const char **bytes, size_t *len,
                            char *format) {
    *bytes = text;
    *len = strlen(text);
    *format = code;
    lua_pushnil(L);
}

bool fpc_lua_value_encode(lua_State *L, int index, int codec_index, const char **bytes, size_t *len,
                          char *format, fpc_error *err) {
    if (!lua_checkstack(L, 12)) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    index = lua_absindex(L, index);
    int type = lua_type(L, index), codec;
    int64_t integer;
    switch (type) {
    case LUA_TSTRING:
        *format = 's';
        lua_pushvalue(L, index);
        *bytes = lua_tolstring(L, -1, len);
        return true;
    case LUA_TNUMBER: encode_number(L, index, bytes, len, format); return true;
    case LUA_TBOOLEAN:
        encode_constant(L, lua_toboolean(L, index) ? "true" : "false", 'b', bytes, len, format);
        return true;
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, index) == NULL) {
            encode_constant(L, "null", 'n', bytes, len, format);
            return true;
        }
        break; /* empty_array, or nothing we know */
    case LUA_TTABLE:
        codec = codec_at(L, codec_index);
        if (codec != 0) return encode_with_codec(L, index, codec, bytes, len, format, err);
        break;
    case LUA_TCDATA_:
        if (!fpc_lua_to_int64(L, index, &integer)) break;
        encode_integer(L, integer, bytes, len, format);
        return true;
    default: break;
    }
    *format = 'j';
    return fpc_lua_json_write(L, index, bytes, len, err); /* says what is wrong with any other type */
}

/* --- decode --- */

static bool misfit(fpc_error *err, size_t len, char format, const char *what) {
    fpc_fail(err, FPC_INVALID, "stored value of %zu bytes, format '%c', is %s", len, format, what);
    return false;
}

static bool push_integer(lua_State *L, const char *bytes, size_t len, fpc_error *err) {
    int64_t integer;
    if (!fpc_int64_parse(bytes, len, &integer)) return misfit(err, len, 'i', "not an integer of 64 bits");
    fpc_lua_push_int64(L, integer);
    return true;
}

static bool push_float(lua_State *L, const char *bytes, size_t len, fpc_error *err) {
    double number;
    if (!fpc_double_parse(bytes, len, &number)) return misfit(err, len, 'f', "not a float");
    lua_pushnumber(L, number);
    return true;
}

static bool is_text(const char *bytes, size_t len, const char *text) {
    return len == strlen(text) && memcmp(bytes, text, len) == 0;
}

static bool push_boolean(lua_State *L, const char *bytes, size_t len, fpc_error *err) {
    bool yes = is_text(bytes, len, "true");
    if (!yes && !is_text(bytes, len, "false")) return misfit(err, len, 'b', "neither true nor false");
    lua_pushboolean(L, yes);
    return true;
}

static bool push_json_row(lua_State *L, const char *bytes, size_t len, int codec, fpc_error *err) {
    if (codec != 0 && codec_writes_json(L, codec)) return decode_with_codec(L, bytes, len, codec, err);
    if (fpc_lua_json_push(L, bytes, len, err)) return true;
    fpc_error_prefix(err, "stored value of %zu bytes, format 'j', is ", len);
    return false;
}

static bool push_untyped(lua_State *L, const char *bytes, size_t len, fpc_error *err) {
    fpc_error reason;
    if (fpc_lua_json_push(L, bytes, len, &reason)) return true;
    if (reason.status == FPC_NOMEM) { /* not the text's fault */
        if (err != NULL) *err = reason;
        return false;
    }
    lua_pushlstring(L, bytes, len);
    return true;
}

bool fpc_lua_value_push(lua_State *L, const char *bytes, size_t len, char format, int codec_index,
                        bool parse_json, fpc_error *err) {
    if (!lua_checkstack(L, 12)) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    int codec = codec_at(L, codec_index);
    if (!parse_json && (format == 't' || format == 'j')) format = 's';
    switch (format) {
    case 's': lua_pushlstring(L, bytes, len); return true;
    case 'i': return push_integer(L, bytes, len, err);
    case 'f': return push_float(L, bytes, len, err);
    case 'b': return push_boolean(L, bytes, len, err);
    case 'n':
        if (!is_text(bytes, len, "null")) return misfit(err, len, 'n', "not null");
        lua_pushlightuserdata(L, NULL);
        return true;
    case 'j': return push_json_row(L, bytes, len, codec, err);
    case 't': return push_untyped(L, bytes, len, err);
    case 'x':
        if (codec != 0) return decode_with_codec(L, bytes, len, codec, err);
        return misfit(err, len, 'x', "made by a custom codec: give the cache the codec that wrote it");
    default:
        fpc_fail(err, FPC_INVALID, "stored value of %zu bytes has the unknown format code 0x%02x", len,
                 (unsigned)(unsigned char)format);
        return false;
    }
}

/* --- Lua functions --- */

/* value_encode(value, codec?, stored_key?) -> bytes, format | nil, err */
static int value_encode(lua_State *L) {
    fpc_error err;
    const char *bytes;
    size_t len;
    char format;
    luaL_checkany(L, 1);
    lua_settop(L, 3);
    size_t key_len = 0;
    const char *key = luaL_optlstring(L, 3, NULL, &key_len);
    if (!fpc_lua_seal_encode(L, 1, 2, key, key_len, &bytes, &len, &format, &err))
        return fpc_lua_failure(L, &err);
    if (lua_type(L, -1) != LUA_TSTRING) lua_pushlstring(L, bytes, len);
    lua_pushlstring(L, &format, 1);
    return 2;
}

/* value_decode(bytes, format, codec?, parse_json?, stored_key?) -> value | nil, err */
static int value_decode(lua_State *L) {
    fpc_error err;
    size_t len, format_len;
    luaL_checktype(L, 1, LUA_TSTRING);
    luaL_checktype(L, 2, LUA_TSTRING);
    const char *bytes = lua_tolstring(L, 1, &len), *format = lua_tolstring(L, 2, &format_len);
    luaL_argcheck(L, format_len == 1, 2, "a format code is one character");
    lua_settop(L, 5);
    bool parse_json = lua_isnil(L, 4) || lua_toboolean(L, 4);
    size_t key_len = 0;
    const char *key = luaL_optlstring(L, 5, NULL, &key_len);
    return fpc_lua_seal_push(L, bytes, len, *format, 3, key, key_len, parse_json, &err)
               ? 1
               : fpc_lua_failure(L, &err);
}

/* value_size(bytes, format) -> bytes that the value has when it is opened and unpacked */
static int value_size(lua_State *L) {
    size_t len, format_len;
    const char *bytes = luaL_checklstring(L, 1, &len), *format = luaL_checklstring(L, 2, &format_len);
    luaL_argcheck(L, format_len == 1, 2, "a format code is one character");
    lua_pushinteger(L, (lua_Integer)fpc_lua_seal_size(bytes, len, *format));
    return 1;
}

void fpc_lua_register_value(lua_State *L) {
    lua_pushcfunction(L, value_size);
    lua_setfield(L, -2, "value_size");
    lua_pushcfunction(L, value_encode);
    lua_setfield(L, -2, "value_encode");
    lua_pushcfunction(L, value_decode);
    lua_setfield(L, -2, "value_decode");
}
