/* fuzz_ini.c -- any bytes as a settings file: an error, or sections whose keys can all be looked up. */
#include "ini.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *bytes =
        malloc(size == 0 ? 1 : size); /* of exactly this size: reading on is seen by the sanitizer */
    if (bytes == NULL) return 0;
    memcpy(bytes, data, size);
    for (int flags = 0; flags < 4; flags++) {
        fpc_ini *ini;
        fpc_error err;
        if (fpc_ini_parse(bytes, size, flags, &ini, &err) != FPC_OK) {
            if (ini != NULL || strchr(err.message, '\n') != NULL) abort();
            continue;
        }
        const char *key;
        for (size_t i = 0; (key = fpc_ini_key(ini, "a", i)) != NULL; i++) {
            if (fpc_ini_get(ini, "a", key) == NULL || !fpc_ini_has_section(ini, "a")) abort();
        }
        fpc_ini_delete(ini);
    }
    free(bytes);
    return 0;
}
