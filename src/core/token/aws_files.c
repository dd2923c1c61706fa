/* aws_files.c -- ~/.aws/config and ~/.aws/credentials.
 *
 * The credentials file calls a profile [name]; the config file calls it [profile name], where the name may be
 * in quotes, and the one called default also just [default]. */
#include "token/aws_files.h"

#include <stdio.h>
#include <string.h>

#define MAX_SECTION 256 /* of a profile's section; a longer name is not found */

fpc_status fpc_aws_files_load(const char *config_path, const char *credentials_path, fpc_aws_files *out,
                              fpc_error *err) {
    *out = (fpc_aws_files){0};
    fpc_status status = fpc_ini_load(config_path, FPC_INI_NESTED, &out->config, err);
    if (status == FPC_OK) status = fpc_ini_load(credentials_path, FPC_INI_NESTED, &out->credentials, err);
    if (status != FPC_OK) fpc_aws_files_clear(out);
    return status;
}

void fpc_aws_files_clear(fpc_aws_files *files) {
    fpc_ini_delete(files->config);
    fpc_ini_delete(files->credentials);
    *files = (fpc_aws_files){0};
}

/* The section [kind name] of the config file, its name in quotes or not; false when it is not there. */
static bool find_section(const fpc_aws_files *files, const char *kind, const char *name,
                         char section[MAX_SECTION]) {
    static const char *const QUOTES[] = {"", "\"", "'"};
    for (size_t i = 0; i < sizeof QUOTES / sizeof QUOTES[0]; i++) {
        int n = snprintf(section, MAX_SECTION, "%s %s%s%s", kind, QUOTES[i], name, QUOTES[i]);
        if (n > 0 && n < MAX_SECTION && fpc_ini_has_section(files->config, section)) return true;
    }
    return false;
}

static bool find_profile(const fpc_aws_files *files, const char *profile, char section[MAX_SECTION]) {
    if (find_section(files, "profile", profile, section)) return true;
    strcpy(section, "default");
    return strcmp(profile, "default") == 0 && fpc_ini_has_section(files->config, section);
}

bool fpc_aws_files_has(const fpc_aws_files *files, const char *profile) {
    char section[MAX_SECTION];
    return fpc_ini_has_section(files->credentials, profile) || find_profile(files, profile, section);
}

static const char *or_null(const char *value) {
    return value == NULL || *value == '\0' ? NULL : value;
}

const char *fpc_aws_files_config(const fpc_aws_files *files, const char *profile, const char *key) {
    char section[MAX_SECTION];
    if (!find_profile(files, profile, section)) return NULL;
    return or_null(fpc_ini_get(files->config, section, key));
}

const char *fpc_aws_files_credentials(const fpc_aws_files *files, const char *profile, const char *key) {
    return or_null(fpc_ini_get(files->credentials, profile, key));
}

const char *fpc_aws_files_get(const fpc_aws_files *files, const char *profile, const char *key) {
    const char *value = fpc_aws_files_credentials(files, profile, key);
    return value != NULL ? value : fpc_aws_files_config(files, profile, key);
}

const char *fpc_aws_files_endpoint(const fpc_aws_files *files, const char *profile, const char *service) {
    char section[MAX_SECTION], key[64];
    const char *services = fpc_aws_files_config(files, profile, "services");
    const char *found = NULL;
    snprintf(key, sizeof key, "%s.endpoint_url", service);
    if (services != NULL && find_section(files, "services", services, section))
        found = or_null(fpc_ini_get(files->config, section, key));
    return found != NULL ? found : fpc_aws_files_config(files, profile, "endpoint_url");
}
