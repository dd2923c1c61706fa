/* seal.c -- `core.seal(options)`: compression and encryption around the codec. */
#include "seal.h"
#include "fpcache/key.h"
#include "fpcache/seal.h"
#include "types.h"
#include "value.h"

#include <stdlib.h>
#include <string.h>

#define SEAL_TYPE "fpcache.seal"
#define MAX_KEYS  16
#define DEFAULT_LIMIT                                                                                        \
    (64.0 * 1024 * 1024) /* of who reads packed values without a seal: max_value_bytes' default */

typedef struct seal {
    fpc_packer *packer; /* made when first needed */
    bool compresses, encrypts, only_sealed;
    size_t above; /* values of fewer bytes are not compressed */
    int level;
    double limit; /* bytes of a value */
    int key_count, used_key;
    fpc_seal_key keys[MAX_KEYS];
    char user[256], space[256];
    size_t user_size, space_size;
    int codec; /* reference to the custom codec, or LUA_NOREF */
} seal;

static seal *test_seal(lua_State *L, int index) {
    return index == 0 || lua_type(L, index) != LUA_TUSERDATA ? NULL : luaL_testudata(L, index, SEAL_TYPE);
}

static int seal_close(lua_State *L) {
    seal *self = luaL_checkudata(L, 1, SEAL_TYPE);
    fpc_packer_delete(self->packer);
    self->packer = NULL;
    luaL_unref(L, LUA_REGISTRYINDEX, self->codec);
    self->codec = LUA_NOREF;
    volatile unsigned char *secrets = (volatile unsigned char *)self->keys;
    for (size_t i = 0; i < sizeof self->keys; i++) secrets[i] = 0;
    self->key_count = 0;
    return 0;
}

static const fpc_seal_key *find_key(const seal *self, const unsigned char *id, size_t size) {
    for (int i = 0; i < self->key_count; i++) {
        if (self->keys[i].id_size == size && memcmp(self->keys[i].id, id, size) == 0) return &self->keys[i];
    }
    return NULL;
}

static fpc_place place_of(const seal *self, const char *key, size_t key_size) {
    return (fpc_place){.user = self->user,
                       .user_size = self->user_size,
                       .space = self->space,
                       .space_size = self->space_size,
                       .key = key,
                       .key_size = key_size};
}

/* Pushes the custom codec or nil and returns its index. */
static int push_codec(lua_State *L, const seal *self) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, self->codec); /* nil for LUA_NOREF */
    return lua_gettop(L);
}

/* --- encode --- */

/* Packs what is smaller by an eighth then; pushes the packed bytes, or nothing when the value stays as it is.
 */
static bool pack(lua_State *L, seal *self, const char **bytes, size_t *len, char *format, fpc_error *err) {
    if (self->packer == NULL) self->packer = fpc_packer_new();
    if (self->packer == NULL) return fpc_fail(err, FPC_NOMEM, "compression"), false;
    size_t room = fpc_pack_room(*len), size;
    char *out = lua_newuserdata(L, room);
    if (fpc_pack(self->packer, self->level, *format, *bytes, *len, out, room, &size, err) != FPC_OK)
        return false;
    if (size > *len - *len / 8) return true;
    *bytes = out, *len = size, *format = FPC_FORMAT_PACKED;
    return true;
}

static bool encrypt(lua_State *L, const seal *self, const char *key, size_t key_size, size_t plain,
                    const char **bytes, size_t *len, char *format, fpc_error *err) {
    fpc_place place = place_of(self, key, key_size);
    char *out = lua_newuserdata(L, *len + FPC_SEAL_EXTRA);
    size_t size;
    if (fpc_seal(&self->keys[self->used_key], &place, *format, (uint32_t)plain, *bytes, *len, out, &size,
                 err) != FPC_OK)
        return false;
    *bytes = out, *len = size, *format = FPC_FORMAT_SEALED;
    return true;
}

bool fpc_lua_seal_encode(lua_State *L, int index, int codec_index, const char *key, size_t key_size,
                         const char **bytes, size_t *len, char *format, fpc_error *err) {
    seal *self = test_seal(L, codec_index);
    if (self == NULL) return fpc_lua_value_encode(L, index, codec_index, bytes, len, format, err);
    if (!lua_checkstack(L, 16)) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    index = lua_absindex(L, index);
    int top = lua_gettop(L);
    bool ok = fpc_lua_value_encode(L, index, push_codec(L, self), bytes, len, format, err);
    if (ok && (double)*len > self->limit) {
        fpc_fail(err, FPC_INVALID, "a value of %zu bytes exceeds max_value_bytes (%.0f)", *len, self->limit);
        ok = false;
    }
    size_t plain = ok ? *len : 0;
    if (ok && self->compresses && *len >= self->above) ok = pack(L, self, bytes, len, format, err);
    if (ok && self->encrypts && key == NULL) {
        fpc_fail(err, FPC_INVALID, "a value is encrypted for a key only");
        ok = false;
    }
    if (ok && self->encrypts) ok = encrypt(L, self, key, key_size, plain, bytes, len, format, err);
    if (!ok) {
        lua_settop(L, top);
        return false;
    }
    if (*format == FPC_FORMAT_SEALED ||
        *format == FPC_FORMAT_PACKED) { /* the newest userdata holds the bytes */
        lua_replace(L, top + 1);
    } else {
        lua_pushvalue(L, top + 2); /* what the plain value is held by */
        lua_replace(L, top + 1);
    }
    lua_settop(L, top + 1);
    return true;
}

/* --- decode --- */

/* Pushes the unpacked bytes. */
static bool unpack(lua_State *L, seal *self, const char **bytes, size_t *len, char *format, fpc_error *err) {
    uint64_t size;
    double limit = self == NULL ? DEFAULT_LIMIT : self->limit;
    if (self != NULL && self->packer == NULL)
        self->packer = fpc_packer_new(); /* without one it takes longer */
    if (fpc_unpacked_size(*bytes, *len, &size, err) != FPC_OK) return false;
    if ((double)size > limit) {
        fpc_fail(err, FPC_INVALID,
                 "stored value of %zu bytes has %llu when decompressed, which exceeds max_value_bytes (%.0f)",
                 *len, (unsigned long long)size, limit);
        return false;
    }
    char *out = lua_newuserdata(L, size == 0 ? 1 : (size_t)size);
    if (fpc_unpack(self == NULL ? NULL : self->packer, *bytes, *len, out, (size_t)size, format, err) !=
        FPC_OK)
        return false;
    *bytes = out, *len = (size_t)size;
    return true;
}

/* Pushes the opened bytes. */
static bool open_sealed(lua_State *L, const seal *self, const char *key, size_t key_size, const char **bytes,
                        size_t *len, char *format, fpc_error *err) {
    fpc_sealed sealed;
    if (fpc_sealed_read(*bytes, *len, &sealed, err) != FPC_OK) return false;
    const fpc_seal_key *secret = self == NULL ? NULL : find_key(self, sealed.id, sealed.id_size);
    if (secret == NULL || key == NULL) {
        fpc_fail(
            err, FPC_INVALID,
            "stored value of %zu bytes is encrypted with the key \"%.*s\", which this cache was not given "
            "(option encrypt)",
            *len, (int)sealed.id_size, (const char *)sealed.id);
        for (char *c = err == NULL ? NULL : err->message; c != NULL && *c != '\0'; c++)
            if ((unsigned char)*c < ' ' || (unsigned char)*c > '~') *c = '?';
        return false;
    }
    fpc_place place = place_of(self, key, key_size);
    size_t size;
    char *out = lua_newuserdata(L, *len);
    if (fpc_unseal(secret, &place, *bytes, *len, out, &size, format, err) != FPC_OK) return false;
    *bytes = out, *len = size;
    return true;
}

bool fpc_lua_seal_push(lua_State *L, const char *bytes, size_t len, char format, int codec_index,
                       const char *key, size_t key_size, bool parse_json, fpc_error *err) {
    seal *self = test_seal(L, codec_index);
    if (self == NULL && format != FPC_FORMAT_PACKED && format != FPC_FORMAT_SEALED)
        return fpc_lua_value_push(L, bytes, len, format, codec_index, parse_json, err);
    if (!lua_checkstack(L, 16)) return fpc_fail(err, FPC_NOMEM, "Lua's stack is full"), false;
    if (codec_index != 0) codec_index = lua_absindex(L, codec_index);
    int top = lua_gettop(L);
    if (self != NULL) codec_index = push_codec(L, self);
    bool ok = true, was_sealed = format == FPC_FORMAT_SEALED;
    if (was_sealed) ok = open_sealed(L, self, key, key_size, &bytes, &len, &format, err);
    if (ok && !was_sealed && self != NULL && self->only_sealed &&
        format != 'i') { /* counters are the server's */
        fpc_fail(err, FPC_INVALID,
                 "stored value of %zu bytes is not encrypted, and this cache takes no other", len);
        ok = false;
    }
    if (ok && format == FPC_FORMAT_PACKED) ok = unpack(L, self, &bytes, &len, &format, err);
    if (ok && (format == FPC_FORMAT_PACKED || format == FPC_FORMAT_SEALED)) {
        fpc_fail(err, FPC_INVALID, "stored value holds a value of format '%c', which is never inside another",
                 format);
        ok = false;
    }
    ok = ok && fpc_lua_value_push(L, bytes, len, format, codec_index, parse_json, err);
    if (ok) lua_insert(L, top + 1);
    lua_settop(L, ok ? top + 1 : top);
    return ok;
}

size_t fpc_lua_seal_size(const char *bytes, size_t len, char format) {
    uint64_t size;
    fpc_sealed sealed;
    if (format == FPC_FORMAT_PACKED && fpc_unpacked_size(bytes, len, &size, NULL) == FPC_OK)
        return (size_t)size;
    if (format == FPC_FORMAT_SEALED && fpc_sealed_read(bytes, len, &sealed, NULL) == FPC_OK)
        return sealed.plain_size;
    return len;
}

/* --- Lua functions --- */

static void read_text(lua_State *L, const char *name, char *out, size_t room, size_t *size) {
    lua_getfield(L, 1, name);
    const char *text = luaL_optlstring(L, -1, "", size);
    if (*size > room) luaL_error(L, "%s has too many bytes", name);
    memcpy(out, text, *size);
    lua_pop(L, 1);
}

/* One key, { id = text, secret = 32 bytes }, from the top of the stack. */
static void read_key(lua_State *L, fpc_seal_key *key) {
    size_t size;
    lua_getfield(L, -1, "id");
    const char *id = luaL_checklstring(L, -1, &key->id_size);
    luaL_argcheck(L, key->id_size >= 1 && key->id_size <= FPC_SEAL_ID_MAX, 1, "a key id has 1 to 64 bytes");
    memcpy(key->id, id, key->id_size);
    lua_getfield(L, -2, "secret");
    const char *secret = luaL_checklstring(L, -1, &size);
    luaL_argcheck(L, size == FPC_SEAL_KEY, 1, "a key has 32 bytes");
    memcpy(key->secret, secret, FPC_SEAL_KEY);
    lua_pop(L, 2);
}

/* core.seal{ codec, limit, above (nil: no compression), level, keys, used (place in keys), only_sealed, user,
 * space } */
static int seal_new(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    seal *self = lua_newuserdata(L, sizeof *self);
    memset(self, 0, sizeof *self);
    self->codec = LUA_NOREF;
    luaL_setmetatable(L, SEAL_TYPE);
    lua_getfield(L, 1, "limit");
    self->limit = luaL_checknumber(L, -1);
    lua_getfield(L, 1, "above");
    self->compresses = !lua_isnil(L, -1);
    self->above = (size_t)luaL_optnumber(L, -1, 0);
    lua_getfield(L, 1, "level");
    self->level = (int)luaL_optnumber(L, -1, 3);
    lua_getfield(L, 1, "only_sealed");
    self->only_sealed = lua_toboolean(L, -1);
    lua_getfield(L, 1, "used");
    self->used_key = (int)luaL_optnumber(L, -1, 0) - 1;
    self->encrypts = self->used_key >= 0;
    lua_settop(L, 2);
    read_text(L, "user", self->user, sizeof self->user, &self->user_size);
    read_text(L, "space", self->space, sizeof self->space, &self->space_size);
    lua_getfield(L, 1, "keys");
    int count = lua_istable(L, -1) ? (int)lua_rawlen(L, -1) : 0;
    luaL_argcheck(L, count <= MAX_KEYS && self->used_key < count, 1, "keys");
    for (int i = 0; i < count; i++) {
        lua_rawgeti(L, 3, i + 1);
        read_key(L, &self->keys[i]);
        lua_pop(L, 1);
        self->key_count = i + 1;
    }
    lua_settop(L, 2);
    lua_getfield(L, 1, "codec");
    if (lua_isnil(L, -1))
        lua_pop(L, 1);
    else
        self->codec = luaL_ref(L, LUA_REGISTRYINDEX);
    return 1;
}

void fpc_lua_register_seal(lua_State *L) {
    static const luaL_Reg METHODS[] = {{NULL, NULL}};
    fpc_lua_new_type(L, SEAL_TYPE, METHODS, seal_close);
    lua_pushcfunction(L, seal_new);
    lua_setfield(L, -2, "seal");
}
