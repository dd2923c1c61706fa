/* value.h -- how a Lua value stands in a row of the cache: bytes and a format code.
 *
 *   's' string, as it is          'i' integer, decimal        'b' "true" or "false"
 *   'f' float, decimal            'n' "null"                  'j' a table, JSON text
 *   't' text without a type, as the Python functions write it
 *   'x' a table, in the words of a custom codec
 *   'z', 'e' one of these, compressed or encrypted: see seal.h, whose functions callers use
 *
 * A custom codec is a Lua object with encode(table) -> string and decode(string) -> value, both
 * called without self.  It gets tables only.  Its rows are 'x'; a codec whose field `format` is "json"
 * writes 'j' and is then also asked to read 'j'.
 * Every value comes back as it went in.  LuaJIT has one kind of number: whole ones within 2^53 are
 * integers (except -0.0), all others floats; integers beyond come back as int64_t, and int64_t and
 * uint64_t up to 2^63-1 may be stored.
 * Both functions may raise Lua's own "not enough memory", and then hold nothing. */
#ifndef FPC_LUA_VALUE_H
#define FPC_LUA_VALUE_H

#include "compat.h"
#include "fpcache/error.h"

/* Encodes the value at `index`.  On success pushes exactly one value, which keeps *bytes alive.  On
 * failure (FPC_INVALID, FPC_NOMEM) pushes nothing.  `codec_index` is the stack index of a custom codec
 * or of nil; 0 and nil mean JSON. */
bool fpc_lua_value_encode(lua_State *L, int index, int codec_index, const char **bytes, size_t *len,
                          char *format, fpc_error *err);

/* Pushes the value of a row; it is never nil (a stored null is lightuserdata NULL).  On failure pushes
 * nothing: FPC_INVALID when the bytes do not fit their format, FPC_NOMEM.
 * With `parse_json` a 't' is the value of its JSON text where it is one that can be held exactly, else
 * the text; without, 't' and 'j' give their text. */
bool fpc_lua_value_push(lua_State *L, const char *bytes, size_t len, char format, int codec_index,
                        bool parse_json, fpc_error *err);

#endif
