/* seal.h -- values on their way to a row and back, compressed and encrypted where the cache asks for it.
 *
 * The "codec" that callers pass on is nil, a custom codec (see value.h), or a seal: `core.seal(options)`,
 * which holds the custom codec, what to compress, and the keys.  The functions below take any of them. */
#ifndef FPC_LUA_SEAL_H
#define FPC_LUA_SEAL_H

#include "compat.h"
#include "fpcache/error.h"

/* As fpc_lua_value_encode.  `key` is the stored key of the row. */
bool fpc_lua_seal_encode(lua_State *L, int index, int codec_index, const char *key, size_t key_size,
                         const char **bytes, size_t *len, char *format, fpc_error *err);

/* As fpc_lua_value_push.  `key` is the stored key of the row; NULL where the caller knows none, which opens
 * nothing encrypted. */
bool fpc_lua_seal_push(lua_State *L, const char *bytes, size_t len, char format, int codec_index,
                       const char *key, size_t key_size, bool parse_json, fpc_error *err);

/* The size of a value when it is opened and unpacked, as it tells itself. */
size_t fpc_lua_seal_size(const char *bytes, size_t len, char format);

#endif
