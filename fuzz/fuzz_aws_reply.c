/* fuzz_aws_reply.c -- any bytes as an answer with keys of AWS: refused whole, or keys that fit into a header.
 */
#include "token/aws.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void look(bool taken, fpc_aws_raw_keys *keys) {
    if (taken != (keys->id != NULL) || taken != (keys->secret != NULL)) abort();
    if (!taken && keys->session != NULL) abort();
    if (taken && (!fpc_cloud_is_token(keys->id) || !fpc_cloud_is_token(keys->secret))) abort();
    if (keys->session != NULL && !fpc_cloud_is_token(keys->session)) abort();
    fpc_aws_raw_keys_clear(keys);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
    char *bytes = malloc(size + 1);
    if (bytes == NULL) return 0;
    memcpy(bytes, data, size);
    bytes[size] = '\0'; /* as a response's body ends */
    fpc_aws_raw_keys keys;
    look(fpc_aws_read_json(bytes, size, "Token", &keys), &keys);
    look(fpc_aws_read_sts(bytes, size, &keys), &keys);
    char *words[8];
    bytes[strcspn(bytes, "\n")] = '\0';
    if (fpc_aws_split(bytes, words, 8) > 7) abort();
    free(bytes);
    return 0;
}
