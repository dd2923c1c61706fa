/* fuzz_ini.c -- any bytes as a settings file: an error that quotes nothing, or sections that can be asked. */
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
        const char *keys[] = {"x", "host", "role_arn", "sts.endpoint_url"}; /* those of the seeds */
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            const char *value = fpc_ini_get(ini, "a", keys[i]);
            if (value != NULL && (strlen(value) > size || !fpc_ini_has_section(ini, "a"))) abort();
        }
        fpc_ini_delete(ini);
    }
    free(bytes);
    return 0;
}
