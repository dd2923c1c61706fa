/* ini.h -- a settings file of sections, such as ~/.databrickscfg and ~/.aws/config.
 *
 *   [name]         begins a section; what stands before the first one is refused
 *   key = value    also with a colon; names of keys have no case, those of sections do
 *   # or ;         begins a comment: at the start of a line, or after a space behind a value
 *
 * A section or key that comes twice: the sections are one, the last value counts.  No section inherits from
 * another.  A byte order mark and CR LF line ends are fine.
 * Owner: strings live as long as the ini, which wipes them.  Thread rule: reading is safe from many threads.
 */
#ifndef FPC_INI_H
#define FPC_INI_H

#include "fpcache/error.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct fpc_ini fpc_ini;

enum fpc_ini_flags {
    FPC_INI_QUOTES = 1, /* "value" and 'value' lose their quotes */
    FPC_INI_NESTED = 2  /* an indented line belongs to the key above: its name is "above.name" */
};

/* FPC_INVALID names the line that is neither of the three, and never quotes it. */
fpc_status fpc_ini_parse(const char *text, size_t length, int flags, fpc_ini **out, fpc_error *err);
/* The same from a file of at most 1 MiB; *out is NULL, and that is no error, when no file is there. */
fpc_status fpc_ini_load(const char *path, int flags, fpc_ini **out, fpc_error *err);
void fpc_ini_delete(fpc_ini *ini); /* NULL is allowed, here and below: an empty file */

bool fpc_ini_has_section(const fpc_ini *ini, const char *section);
/* The value, perhaps ""; NULL when the section has no such key. */
const char *fpc_ini_get(const fpc_ini *ini, const char *section, const char *key);

#endif
