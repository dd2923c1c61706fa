/* aws.h -- the parts of the source for RDS, Aurora and DSQL: keys of AWS, and where they come from.
 *
 *   keys   an access key with its secret, temporary ones with a session token and an end
 *   ask    one search for keys: what it needs, and what it tried
 *
 * Thread rule: one thread at a time for each ask. */
#ifndef FPC_TOKEN_AWS_H
#define FPC_TOKEN_AWS_H

#include "token/aws_files.h"
#include "token/cloud.h"

typedef struct fpc_aws_keys {
    char *id, *secret;
    char *session;      /* NULL: long-term keys */
    double valid_for_s; /* from the start of the ask; below 0: no end is known */
} fpc_aws_keys;

void fpc_aws_keys_clear(fpc_aws_keys *keys); /* wipes */

enum fpc_aws_variable {
    FPC_AWS_ACCESS_KEY_ID,
    FPC_AWS_SECRET_ACCESS_KEY,
    FPC_AWS_SESSION_TOKEN,
    FPC_AWS_CREDENTIAL_EXPIRATION,
    FPC_AWS_PROFILE,
    FPC_AWS_DEFAULT_PROFILE,
    FPC_AWS_REGION,
    FPC_AWS_DEFAULT_REGION,
    FPC_AWS_CONFIG_FILE,
    FPC_AWS_CREDENTIALS_FILE,
    FPC_AWS_WEB_IDENTITY_TOKEN_FILE,
    FPC_AWS_ROLE_ARN,
    FPC_AWS_ROLE_SESSION_NAME,
    FPC_AWS_CONTAINER_RELATIVE_URI,
    FPC_AWS_CONTAINER_FULL_URI,
    FPC_AWS_CONTAINER_TOKEN_FILE,
    FPC_AWS_CONTAINER_TOKEN,
    FPC_AWS_METADATA_DISABLED,
    FPC_AWS_METADATA_ENDPOINT,
    FPC_AWS_METADATA_ENDPOINT_MODE,
    FPC_AWS_ENDPOINT_STS,
    FPC_AWS_ENDPOINT,
    FPC_AWS_IGNORE_ENDPOINTS,
    FPC_AWS_VARIABLES
};

typedef struct fpc_aws_ask {
    char *const *vars;   /* the environment; NULL for what is not set */
    const char *profile; /* never NULL */
    bool profile_given;  /* in our settings: the environment's keys do not count then */
    bool profile_named;  /* there or in the environment: it must exist */
    const char *region;
    fpc_aws_files files;
    const fpc_token_fetch *how;
    fpc_http *http;
    int64_t start_ns;
    fpc_token_failure *failure; /* filled by whatever fails */
    fpc_secret_buffer tried;    /* what did not apply, for the message */
} fpc_aws_ask;

/* Looks in all places, in the order of AWS's own libraries. */
fpc_status fpc_aws_find_keys(fpc_aws_ask *ask, fpc_aws_keys *out);

/* --- the places that are asked --- */

/* The container's endpoint.  The address must be https, or one of this machine or of ECS and EKS. */
fpc_status fpc_aws_container_keys(fpc_aws_ask *ask, fpc_aws_keys *out);
/* The metadata service of an EC2 instance, version 2. */
fpc_status fpc_aws_instance_keys(fpc_aws_ask *ask, fpc_aws_keys *out);
/* A program of the profile, run without a shell. */
fpc_status fpc_aws_process_keys(fpc_aws_ask *ask, const char *command, fpc_aws_keys *out);

/* A role to be assumed; NULL where nothing is given. */
typedef struct fpc_aws_role {
    const char *arn, *session_name, *external_id, *duration_s;
} fpc_aws_role;

/* STS: by other keys, or by the token in a file. */
fpc_status fpc_aws_assume_role(fpc_aws_ask *ask, const fpc_aws_role *role, const fpc_aws_keys *by,
                               fpc_aws_keys *out);
fpc_status fpc_aws_web_identity_keys(fpc_aws_ask *ask, const fpc_aws_role *role, const char *token_file,
                                     fpc_aws_keys *out);

/* --- reading what they say --- */

/* Keys as texts, and when they end: seconds since 1970, NaN when nothing was said.  Wipe with clear. */
typedef struct fpc_aws_raw_keys {
    char *id, *secret, *session;
    double expires;
} fpc_aws_raw_keys;

void fpc_aws_raw_keys_clear(fpc_aws_raw_keys *keys);
/* False: it has no such keys, or they could not be used in a request. */
bool fpc_aws_read_json(const char *text, size_t length, const char *session_name, fpc_aws_raw_keys *out);
/* An answer of STS, XML or JSON. */
bool fpc_aws_read_sts(const char *text, size_t length, fpc_aws_raw_keys *out);

/* Moves raw keys into `out`; `answer` says when they came, and gives the server's clock. */
fpc_status fpc_aws_accept(fpc_aws_ask *ask, const fpc_http_response *answer, fpc_aws_raw_keys *raw,
                          fpc_aws_keys *out);

/* Cuts a command line into words, as a shell does with quotes and backslashes, in place; nothing is expanded.
 * The words' number, ended by NULL; -1 when a quote stays open or there are more than `max` - 1. */
int fpc_aws_split(char *line, char **words, int max);

/* The region in the name of a host of RDS or DSQL; false when it has none. */
bool fpc_aws_region_of_host(const char *host, char *region, size_t size);

#endif
