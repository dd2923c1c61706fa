/* cloud.h -- what the sources of AWS, Azure and Google have in common.
 *
 *   metadata service   a server that a cloud gives each of its machines at a fixed local address
 *
 * Thread rule: one thread at a time for each object; fpc_cloud_env_read() before other threads exist. */
#ifndef FPC_TOKEN_CLOUD_H
#define FPC_TOKEN_CLOUD_H

#include "http.h"

#include <jansson.h>

#define FPC_CLOUD_METADATA_S 3.0 /* how long a metadata service may take: it is near */
#define FPC_CLOUD_MAX_FILE   ((size_t)64 * 1024)

/* Copies the environment variables `names`; one that is empty or not set gives NULL.  False: out of memory.
 */
bool fpc_cloud_env_read(const char *const *names, size_t count, char **values);
/* Copies the values of settings, NULLs too.  False: out of memory. */
bool fpc_cloud_copy(const char *const *from, char **to, size_t count);
/* Wipes and frees what either of the two made. */
void fpc_cloud_forget(char **values, size_t count);

/* Asks once.  An answer other than 2xx is a failure of `who`. */
fpc_status fpc_cloud_ask(fpc_http *http, const fpc_http_request *request, const char *who,
                         fpc_http_response *response, fpc_token_failure *failure);

/* The answer as a JSON object, to be given back with fpc_cloud_json_delete(). */
fpc_status fpc_cloud_json(const fpc_http_response *response, const char *who, json_t **out,
                          fpc_token_failure *failure);
/* Wipes all texts in it; NULL is allowed. */
void fpc_cloud_json_delete(json_t *json);
/* A text that is not empty, or NULL. */
const char *fpc_cloud_json_text(const json_t *object, const char *name);
/* A number, also one that is written as a text; NaN when there is none. */
double fpc_cloud_json_number(const json_t *object, const char *name);

/* Whether a text is printable ASCII without blanks, as tokens and keys are: it fits into a header. */
bool fpc_cloud_is_token(const char *text);

/* Makes a token of the answer's access_token, and of its expires_on (a time) or expires_in (seconds). */
fpc_status fpc_cloud_take_token(const fpc_http_response *response, const char *who, int64_t start_ns,
                                fpc_token *out, fpc_token_failure *failure);

/* The text of a file without the white space around it: a token that somebody else renews. */
fpc_status fpc_cloud_read_file(const char *path, fpc_secret_buffer *out, fpc_token_failure *failure);

#endif
