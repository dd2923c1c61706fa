/* source.h -- for those who write a source: the list of kinds, and the reading of settings.
 *
 *   kind      what a user calls it, such as "databricks"; one constructor each
 *   settings  what the user gave for it; a list is one setting of that name for each element
 *
 * A new kind is one file with its constructor, a line below and a line in the table of source.c.
 * Thread rule: any thread. */
#ifndef FPC_TOKEN_SOURCE_KINDS_H
#define FPC_TOKEN_SOURCE_KINDS_H

#include "failure.h"
#include "fpcache/token_source.h"

typedef struct fpc_token_settings {
    const char *kind;
    const fpc_token_setting *list;
    size_t count;
} fpc_token_settings;

/* A constructor; what it keeps of the settings it copies. */
typedef fpc_status fpc_token_make(const fpc_token_settings *settings, fpc_token_source **out, fpc_error *err);

/* `names` ends with NULL; values[i] becomes the text of names[i], still the caller's, or NULL when it was not
 * given or is empty.  A name written as "argv..." may be given many times; its value is then the first.
 * FPC_INVALID for a name that is not in the list, or that was given twice. */
fpc_status fpc_token_settings_read(const fpc_token_settings *settings, const char *const *names,
                                   const char **values, fpc_error *err);

/* The next value of a name that may be given many times, or NULL; *at is 0 at first. */
const char *fpc_token_settings_next(const fpc_token_settings *settings, const char *name, size_t *at);

/* Empty and without an end, before a source fills it. */
void fpc_token_init(fpc_token *token);

/* The constructors. */
fpc_token_make fpc_token_make_password_command;
fpc_token_make fpc_token_make_password_file;
fpc_token_make fpc_token_make_aws;
fpc_token_make fpc_token_make_azure;
fpc_token_make fpc_token_make_google;
fpc_token_make fpc_token_make_databricks;

#endif
