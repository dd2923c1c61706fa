/* aws_files.h -- ~/.aws/config and ~/.aws/credentials: settings by profile.
 *
 * Owner: strings live as long as the files.  Thread rule: reading is safe from many threads. */
#ifndef FPC_TOKEN_AWS_FILES_H
#define FPC_TOKEN_AWS_FILES_H

#include "ini.h"

typedef struct fpc_aws_files {
    fpc_ini *config, *credentials; /* NULL: no such file */
} fpc_aws_files;

/* Reads both; a file that is not there is empty. */
fpc_status fpc_aws_files_load(const char *config_path, const char *credentials_path, fpc_aws_files *out,
                              fpc_error *err);
void fpc_aws_files_clear(fpc_aws_files *files);

bool fpc_aws_files_has(const fpc_aws_files *files, const char *profile);

/* A setting of a profile, or NULL; an empty one counts as not set. */
const char *fpc_aws_files_config(const fpc_aws_files *files, const char *profile, const char *key);
const char *fpc_aws_files_credentials(const fpc_aws_files *files, const char *profile, const char *key);
/* From either; the credentials file counts more. */
const char *fpc_aws_files_get(const fpc_aws_files *files, const char *profile, const char *key);

/* The address that the profile gives for a service ("sts"), or NULL. */
const char *fpc_aws_files_endpoint(const fpc_aws_files *files, const char *profile, const char *service);

#endif
