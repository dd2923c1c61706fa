/* source.c -- from the name of a kind to a source, and what all sources have in common. */
#include "source.h"
#include "secret.h"

#include <stdlib.h>
#include <string.h>

static const struct kind {
    const char *name;
    fpc_token_make *make;
    bool is_of_server; /* see fpc_token_kind_is_of_server() */
    bool is_plain;     /* see fpc_token_kind_is_plain() */
} KINDS[] = {
    {"password_command", fpc_token_make_password_command, false, false},
    {"password_file", fpc_token_make_password_file, false, false},
    {"aws", fpc_token_make_aws, true, true},
    {"azure", fpc_token_make_azure, false, true},
    {"google", fpc_token_make_google, false, true},
    {"databricks", fpc_token_make_databricks, false, true},
};

static const struct kind *find(const char *name) {
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++) {
        if (strcmp(KINDS[i].name, name) == 0) return &KINDS[i];
    }
    return NULL;
}

bool fpc_token_kind_is_of_server(const char *kind) {
    const struct kind *found = find(kind);
    return found != NULL && found->is_of_server;
}

bool fpc_token_kind_is_plain(const char *kind) {
    const struct kind *found = find(kind);
    return found != NULL && found->is_plain;
}

fpc_status fpc_token_source_new(const char *kind, const fpc_token_setting *settings, size_t count,
                                fpc_token_source **out, fpc_error *err) {
    const struct kind *found = find(kind);
    if (found == NULL) return fpc_fail(err, FPC_INVALID, "auth: there is no kind \"%.40s\"", kind);
    fpc_token_settings all = {.kind = kind, .list = settings, .count = count};
    fpc_status status = found->make(&all, out, err);
    if (status != FPC_OK) fpc_error_prefix(err, "auth %s: ", kind);
    return status;
}

void fpc_token_source_delete(fpc_token_source *source) {
    if (source != NULL) source->class->destroy(source);
}

/* The length of a name in a list of names, without the dots that say "many times". */
static size_t name_length(const char *name, bool *repeats) {
    size_t length = strlen(name);
    *repeats = length > 3 && strcmp(name + length - 3, "...") == 0;
    return *repeats ? length - 3 : length;
}

fpc_status fpc_token_settings_read(const fpc_token_settings *settings, const char *const *names,
                                   const char **values, fpc_error *err) {
    for (size_t i = 0; names[i] != NULL; i++) values[i] = NULL;
    for (size_t s = 0; s < settings->count; s++) {
        const fpc_token_setting *given = &settings->list[s];
        bool is_known = false;
        for (size_t i = 0; names[i] != NULL && !is_known; i++) {
            bool repeats;
            size_t length = name_length(names[i], &repeats);
            if (strlen(given->name) != length || strncmp(given->name, names[i], length) != 0) continue;
            is_known = true;
            if (values[i] != NULL && !repeats)
                return fpc_fail(err, FPC_INVALID, "\"%s\" was given twice", given->name);
            if (values[i] == NULL && given->value[0] != '\0') values[i] = given->value;
        }
        if (!is_known) return fpc_fail(err, FPC_INVALID, "it has no setting \"%.40s\"", given->name);
    }
    return FPC_OK;
}

const char *fpc_token_settings_next(const fpc_token_settings *settings, const char *name, size_t *at) {
    while (*at < settings->count) {
        const fpc_token_setting *given = &settings->list[(*at)++];
        if (strcmp(given->name, name) == 0) return given->value;
    }
    return NULL;
}

void fpc_token_init(fpc_token *token) {
    *token = (fpc_token){.valid_for_s = -1};
}

void fpc_token_clear(fpc_token *token) {
    fpc_secret_free(token->password);
    free(token->host);
    free(token->user);
    fpc_token_init(token);
}
