/* password_command.c -- a password that a program writes to its standard output.
 *
 * It writes either the password as one line, or {"token": ..., "expires_in": seconds} or {"token": ...,
 * "expires_at": time or seconds since 1970} as JSON.  No shell comes in between: argv is a list.
 * Settings: argv, a list; lifetime, for passwords without an end of their own, in seconds; timeout, in
 * seconds. */
#include "fpcache/os.h"
#include "fpcache/process.h"
#include "rfc3339.h"
#include "token/cloud.h"
#include "token/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OUTPUT ((size_t)256 * 1024)
#define MAX_ERRORS ((size_t)4096)
#define TIMEOUT_S  30.0

typedef struct command_source {
    fpc_token_source head;
    char **argv;
    double lifetime_s; /* below 0: not known */
    double timeout_s;
} command_source;

static fpc_status bad_output(const command_source *self, const char *why, fpc_token_failure *failure) {
    return fpc_token_fail(failure, true, FPC_INVALID, "password_command %s: %s", self->argv[0], why);
}

/* The program ended, and not well.  What it says about it is shown, but for what looks like a secret. */
static fpc_status failed(const command_source *self, fpc_process_result *ran, fpc_token_failure *failure) {
    char *words = ran->errors != NULL ? ran->errors : "";
    fpc_secret_redact(words);
    words += strspn(words, "\n");
    int length = (int)strcspn(words, "\n");
    if (ran->signal != 0)
        return fpc_token_fail(failure, false, FPC_SERVER, "password_command %s was ended by signal %d",
                              self->argv[0], ran->signal);
    return fpc_token_fail(failure, false, FPC_AUTH, "password_command %s failed with exit code %d%s%.*s",
                          self->argv[0], ran->exit_status, length > 0 ? ": " : "",
                          length > 300 ? 300 : length, words);
}

static const char *first_text(const json_t *json, const char *const *names) {
    const char *text = NULL;
    for (; *names != NULL && text == NULL; names++) text = fpc_cloud_json_text(json, *names);
    return text;
}

/* Whether what the program says of the end can be read.  `seconds` counts from when it was started: 0 for an
 * end that is past, NAN when nothing is said. */
static bool life_of(const json_t *json, double started, double *seconds) {
    const json_t *in = json_object_get(json, "expires_in"), *at = json_object_get(json, "expires_at");
    if (in != NULL && !json_is_null(in)) {
        *seconds = fpc_cloud_json_number(json, "expires_in");
    } else if (at != NULL && !json_is_null(at)) {
        const char *text = fpc_cloud_json_text(json, "expires_at");
        double end = fpc_cloud_json_number(json, "expires_at");
        if (isnan(end) && (text == NULL || !fpc_rfc3339_parse(text, &end))) return false;
        *seconds = end - started;
    } else {
        *seconds = NAN;
        return true;
    }
    if (*seconds < 0) *seconds = 0;
    return !isnan(*seconds);
}

static fpc_status take_json(const command_source *self, const fpc_process_result *ran, double started,
                            fpc_token *out, fpc_token_failure *failure) {
    static const char *const NAMES[] = {"token", "password", "access_token", NULL};
    json_t *json = json_loadb(ran->output, ran->output_len, 0, NULL);
    const char *password = first_text(json, NAMES);
    fpc_status status = FPC_OK;
    double life_s;
    if (password == NULL) {
        status = bad_output(self, "it wrote neither one line nor JSON with a \"token\"", failure);
    } else if (!life_of(json, started, &life_s)) {
        status = bad_output(self, "its \"expires_in\" is no seconds, or its \"expires_at\" no time", failure);
    } else {
        if (!isnan(life_s)) out->valid_for_s = life_s;
        out->password = fpc_secret_dup(password);
        if (out->password == NULL) status = fpc_token_no_memory(failure);
    }
    fpc_cloud_json_delete(json);
    return status;
}

static fpc_status take(const command_source *self, fpc_process_result *ran, double started, fpc_token *out,
                       fpc_token_failure *failure) {
    if (ran->signal != 0 || ran->exit_status != 0) return failed(self, ran, failure);
    if (ran->truncated) return bad_output(self, "it wrote more than 256 KiB", failure);
    size_t length = ran->output_len;
    while (length > 0 && strchr("\r\n", ran->output[length - 1]) != NULL) length--;
    if (length == 0) return bad_output(self, "it wrote nothing", failure);
    if (ran->output[0] == '{') return take_json(self, ran, started, out, failure);
    if (memchr(ran->output, '\n', length) != NULL || memchr(ran->output, '\0', length) != NULL)
        return bad_output(self, "it wrote more than one line", failure);
    out->password = fpc_secret_copy(ran->output, length);
    return out->password != NULL ? FPC_OK : fpc_token_no_memory(failure);
}

static fpc_status fetch(fpc_token_source *source, const fpc_token_fetch *how, fpc_token *out,
                        fpc_token_failure *failure) {
    command_source *self = (command_source *)source;
    fpc_token_init(out);
    out->valid_for_s = self->lifetime_s;
    fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
    options.argv = (const char *const *)self->argv;
    options.max_errors = MAX_ERRORS;
    fpc_deadline own = fpc_deadline_in(self->timeout_s);
    double started = fpc_os_wall_clock();
    fpc_process_result ran;
    fpc_error err;
    fpc_status status =
        fpc_process_run(&options, MAX_OUTPUT, own < how->deadline ? own : how->deadline, &ran, &err);
    if (status == FPC_OK)
        status = take(self, &ran, started, out, failure);
    else
        fpc_token_fail(failure, status == FPC_INVALID, status, "password_command: %s", err.message);
    fpc_process_result_clear(&ran);
    if (status != FPC_OK) fpc_token_clear(out);
    return status;
}

static void destroy(fpc_token_source *source) {
    command_source *self = (command_source *)source;
    for (size_t i = 0; self->argv != NULL && self->argv[i] != NULL; i++) fpc_secret_free(self->argv[i]);
    free(self->argv);
    free(self);
}

static const fpc_token_source_class CLASS = {.name = "password_command", .fetch = fetch, .destroy = destroy};

/* A positive number of seconds, in any locale; `missing` when there is none. */
static bool read_seconds(const char *text, double missing, double *out) {
    *out = missing;
    if (text == NULL) return true;
    double unit = 1;
    bool is_fraction = false;
    *out = 0;
    for (; *text != '\0'; text++) {
        if (*text == '.' && !is_fraction) {
            is_fraction = true;
        } else if (*text < '0' || *text > '9') {
            return false;
        } else if (is_fraction) {
            *out += (unit /= 10) * (*text - '0');
        } else {
            *out = *out * 10 + (*text - '0');
        }
    }
    return *out > 0 && *out < 1e9;
}

static bool copy_argv(command_source *self, const fpc_token_settings *settings) {
    self->argv = calloc(settings->count + 1, sizeof *self->argv);
    const char *word;
    for (size_t i = 0, at = 0; self->argv != NULL; i++) {
        word = fpc_token_settings_next(settings, "argv", &at);
        if (word == NULL) return true;
        self->argv[i] = strdup(word);
        if (self->argv[i] == NULL) return false;
    }
    return false;
}

fpc_status fpc_token_make_password_command(const fpc_token_settings *settings, fpc_token_source **out,
                                           fpc_error *err) {
    enum { ARGV, LIFETIME, TIMEOUT, COUNT };
    static const char *const NAMES[COUNT + 1] = {"argv...", "lifetime", "timeout", NULL};
    const char *values[COUNT];
    double lifetime_s, timeout_s;
    fpc_status status = fpc_token_settings_read(settings, NAMES, values, err);
    if (status != FPC_OK) return status;
    size_t at = 0;
    const char *program = fpc_token_settings_next(settings, "argv", &at);
    if (program == NULL || *program == '\0') return fpc_fail(err, FPC_INVALID, "there is no program to run");
    if (!read_seconds(values[LIFETIME], -1, &lifetime_s))
        return fpc_fail(err, FPC_INVALID, "lifetime: a positive number of seconds");
    if (!read_seconds(values[TIMEOUT], TIMEOUT_S, &timeout_s))
        return fpc_fail(err, FPC_INVALID, "timeout: a positive number of seconds");
    command_source *self = calloc(1, sizeof *self);
    if (self == NULL) return fpc_fail(err, FPC_NOMEM, "source");
    self->head.class = &CLASS;
    self->lifetime_s = lifetime_s;
    self->timeout_s = timeout_s;
    if (!copy_argv(self, settings)) {
        destroy(&self->head);
        return fpc_fail(err, FPC_NOMEM, "source");
    }
    *out = &self->head;
    return FPC_OK;
}
