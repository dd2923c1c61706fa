/* ini.c -- a settings file of sections.
 *
 * One copy of the text is cut in place: a '\0' ends each name and value, and an array of entries points into
 * it.  A section is an entry without a key, so an empty one is known too. */
#include "ini.h"

#include "secret.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#define MAX_FILE ((size_t)1 << 20)

typedef struct entry {
    const char *section, *parent, *key, *value; /* parent: of a nested key, else NULL */
    char *name;                                 /* "parent.key", owned; NULL when it is just the key */
} entry;

struct fpc_ini {
    char *text;
    size_t length;
    entry *entries;
    size_t count, capacity;
};

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

/* Cuts the spaces off both ends, in place. */
static char *trim(char *from) {
    while (is_space(*from)) from++;
    size_t length = strlen(from);
    while (length > 0 && is_space(from[length - 1])) length--;
    from[length] = '\0';
    return from;
}

static void cut_comment(char *value) {
    for (char *at = value; *at != '\0'; at++) {
        if ((*at == '#' || *at == ';') && at > value && is_space(at[-1])) {
            *at = '\0';
            return;
        }
    }
}

/* The text between two equal quotes that have none inside and nothing but a comment behind; or NULL. */
static char *unquote(char *value) {
    if (*value != '"' && *value != '\'') return NULL;
    char *end = strchr(value + 1, *value);
    if (end == NULL) return NULL;
    char *rest = end + 1;
    while (is_space(*rest)) rest++;
    if (*rest != '\0' && (rest == end + 1 || (*rest != '#' && *rest != ';'))) return NULL;
    *end = '\0';
    return value + 1;
}

static char *clean_value(char *value, int flags) {
    while (is_space(*value)) value++;
    char *inner = (flags & FPC_INI_QUOTES) != 0 ? unquote(value) : NULL;
    if (inner != NULL) return inner;
    if (*value == '#' || *value == ';') *value = '\0'; /* the space was behind the "=" */
    cut_comment(value);
    return trim(value);
}

static bool add(fpc_ini *ini, entry new) {
    if (ini->count == ini->capacity) {
        size_t capacity = ini->capacity == 0 ? 32 : 2 * ini->capacity;
        entry *bigger = realloc(ini->entries, capacity * sizeof *bigger);
        if (bigger == NULL) return false;
        ini->entries = bigger;
        ini->capacity = capacity;
    }
    if (new.parent != NULL) {
        fpc_secret_buffer name = {0};
        fpc_secret_append_text(&name, new.parent);
        fpc_secret_append_text(&name, ".");
        fpc_secret_append_text(&name, new.key);
        new.name = fpc_secret_take(&name);
        if (new.name == NULL) return false;
    }
    ini->entries[ini->count++] = new;
    return true;
}

/* Where the reader of lines is. */
typedef struct place {
    const char *section, *parent;
    int flags;
} place;

/* One line, without its end.  FPC_INVALID when it cannot be understood. */
static fpc_status read_line(fpc_ini *ini, place *at, char *line) {
    bool indented = is_space(*line);
    char *text = trim(line);
    if (*text == '\0' || *text == '#' || *text == ';') return FPC_OK;
    if (*text == '[') {
        char *end = strchr(text, ']');
        if (end == NULL) return FPC_INVALID;
        *end = '\0';
        at->section = trim(text + 1);
        at->parent = NULL;
        return add(ini, (entry){.section = at->section}) ? FPC_OK : FPC_NOMEM;
    }
    size_t name_length = strcspn(text, "=:");
    if (text[name_length] == '\0' || name_length == 0 || at->section == NULL) return FPC_INVALID;
    text[name_length] = '\0';
    entry new = {.section = at->section, .key = trim(text)};
    new.value = clean_value(text + name_length + 1, at->flags);
    if ((at->flags & FPC_INI_NESTED) != 0 && indented && at->parent != NULL)
        new.parent = at->parent;
    else
        at->parent = new.key;
    return add(ini, new) ? FPC_OK : FPC_NOMEM;
}

static fpc_status read_lines(fpc_ini *ini, int flags, fpc_error *err) {
    place at = {.flags = flags};
    char *line = ini->text;
    if (strncmp(line, "\xEF\xBB\xBF", 3) == 0) line += 3;
    for (int number = 1; line != NULL; number++) {
        char *end = strchr(line, '\n');
        if (end != NULL) *end = '\0';
        size_t length = strlen(line);
        if (length > 0 && line[length - 1] == '\r') line[length - 1] = '\0';
        fpc_status status = read_line(ini, &at, line);
        if (status == FPC_INVALID)
            return fpc_fail(err, status, "line %d is neither [section] nor key = value", number);
        if (status != FPC_OK) return fpc_fail(err, status, "settings file");
        line = end == NULL ? NULL : end + 1;
    }
    return FPC_OK;
}

fpc_status fpc_ini_parse(const char *text, size_t length, int flags, fpc_ini **out, fpc_error *err) {
    *out = NULL;
    if (memchr(text, '\0', length) != NULL) return fpc_fail(err, FPC_INVALID, "a NUL byte: this is no text");
    fpc_ini *ini = calloc(1, sizeof *ini);
    if (ini != NULL) ini->text = malloc(length + 1);
    if (ini == NULL || ini->text == NULL) {
        free(ini);
        return fpc_fail(err, FPC_NOMEM, "settings file");
    }
    memcpy(ini->text, text, length);
    ini->text[length] = '\0';
    ini->length = length;
    fpc_status status = read_lines(ini, flags, err);
    if (status == FPC_OK)
        *out = ini;
    else
        fpc_ini_delete(ini);
    return status;
}

fpc_status fpc_ini_load(const char *path, int flags, fpc_ini **out, fpc_error *err) {
    *out = NULL;
    struct stat st;
    if (stat(path, &st) != 0) return FPC_OK; /* one that is there and not readable fails below */
    fpc_secret_buffer text = {0};
    fpc_status status = fpc_secret_read_file(&text, path, MAX_FILE, err);
    if (status == FPC_OK && text.length > 0) {
        status = fpc_ini_parse(text.bytes, text.length, flags, out, err);
        if (status != FPC_OK) fpc_error_prefix(err, "%.200s: ", path);
    }
    fpc_secret_buffer_clear(&text);
    return status;
}

void fpc_ini_delete(fpc_ini *ini) {
    if (ini == NULL) return;
    for (size_t i = 0; i < ini->count; i++) free(ini->entries[i].name);
    OPENSSL_cleanse(ini->text, ini->length);
    free(ini->text);
    free(ini->entries);
    free(ini);
}

bool fpc_ini_has_section(const fpc_ini *ini, const char *section) {
    for (size_t i = 0; ini != NULL && i < ini->count; i++) {
        if (strcmp(ini->entries[i].section, section) == 0) return true;
    }
    return false;
}

static const char *name_of(const entry *e) {
    return e->name != NULL ? e->name : e->key;
}

const char *fpc_ini_get(const fpc_ini *ini, const char *section, const char *key) {
    for (size_t i = ini == NULL ? 0 : ini->count; i-- > 0;) {
        const entry *e = &ini->entries[i];
        if (e->key != NULL && strcmp(e->section, section) == 0 && strcasecmp(name_of(e), key) == 0)
            return e->value;
    }
    return NULL;
}
