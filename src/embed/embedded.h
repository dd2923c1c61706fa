/* embedded.h -- the Lua modules that are built in (made by cmake/EmbedLua.cmake). */
#ifndef FPC_EMBED_EMBEDDED_H
#define FPC_EMBED_EMBEDDED_H

#include <stddef.h>

typedef struct fpc_embedded {
    const char *name; /* as for require; NULL ends the table */
    const char *source;
    size_t length;
} fpc_embedded;

extern const fpc_embedded FPC_EMBEDDED[];

#endif
