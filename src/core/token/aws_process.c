/* aws_process.c -- keys from a program that a profile names (credential_process). */
#include "fpcache/os.h"
#include "fpcache/process.h"
#include "token/aws.h"
#include "token/failure.h"

#include <string.h>

#define MAX_WORDS  64
#define MAX_OUTPUT ((size_t)64 * 1024)
#define LONGEST_S  60.0

/* Copies one word to `to`, without its quotes and backslashes.  What follows it, or NULL when a quote stays
 * open.  Writing never overtakes reading. */
static char *copy_word(char *from, char **to) {
    char quote = '\0';
    for (; *from != '\0'; from++) {
        if (quote == '\0' && (*from == ' ' || *from == '\t')) break;
        if (quote == '\0' && (*from == '"' || *from == '\'')) {
            quote = *from;
        } else if (quote != '\0' && *from == quote) {
            quote = '\0';
        } else {
            bool escapes = *from == '\\' && quote != '\'' && from[1] != '\0';
            if (escapes && quote == '"' && strchr("\"\\$`", from[1]) == NULL) escapes = false;
            if (escapes) from++;
            *(*to)++ = *from;
        }
    }
    return quote == '\0' ? from : NULL;
}

int fpc_aws_split(char *line, char **words, int max) {
    int count = 0;
    char *to = line, *from = line;
    for (;;) {
        while (*from == ' ' || *from == '\t') from++;
        if (*from == '\0') break;
        if (count == max - 1) return -1;
        words[count++] = to;
        from = copy_word(from, &to);
        if (from == NULL) return -1;
        bool last = *from == '\0';
        if (!last) from++;
        *to++ = '\0';
        if (last) break;
    }
    words[count] = NULL;
    return count;
}

/* Moves what the program wrote into keys. */
static fpc_status read_output(fpc_aws_ask *ask, const fpc_process_result *ran, fpc_aws_keys *out) {
    fpc_aws_raw_keys raw;
    if (ran->exit_status != 0) {
        fpc_status status =
            fpc_token_fail(ask->failure, false, FPC_AUTH,
                           "the credential_process of the AWS profile failed (exit status %d): %.200s",
                           ran->exit_status, ran->errors != NULL ? ran->errors : "");
        fpc_secret_redact(ask->failure->error.message);
        return status;
    }
    json_t *json = ran->truncated ? NULL : json_loadb(ran->output, ran->output_len, 0, NULL);
    bool is_known = fpc_cloud_json_number(json, "Version") == 1;
    fpc_cloud_json_delete(json);
    if (!is_known || !fpc_aws_read_json(ran->output, ran->output_len, "SessionToken", &raw))
        return fpc_token_fail(
            ask->failure, false, FPC_INVALID,
            "the credential_process of the AWS profile did not write keys as JSON of Version 1");
    fpc_http_response now = {.started = fpc_os_wall_clock(), .started_ns = fpc_clock_ns()};
    return fpc_aws_accept(ask, &now, &raw, out);
}

fpc_status fpc_aws_process_keys(fpc_aws_ask *ask, const char *command, fpc_aws_keys *out) {
    char *words[MAX_WORDS], *line = fpc_secret_dup(command);
    if (line == NULL) return fpc_token_no_memory(ask->failure);
    fpc_status status;
    *ask->failure = (fpc_token_failure){0};
    if (fpc_aws_split(line, words, MAX_WORDS) < 1) {
        status =
            fpc_token_fail(ask->failure, true, FPC_INVALID,
                           "the credential_process of the AWS profile has an open quote or too many words");
    } else {
        fpc_process_options options = FPC_PROCESS_OPTIONS_INIT;
        fpc_process_result ran = {0};
        fpc_deadline longest = fpc_deadline_in(LONGEST_S);
        options.argv = (const char *const *)words;
        options.max_errors = 512;
        status =
            fpc_process_run(&options, MAX_OUTPUT, ask->how->deadline < longest ? ask->how->deadline : longest,
                            &ran, &ask->failure->error);
        if (status == FPC_OK)
            status = read_output(ask, &ran, out);
        else
            ask->failure->permanent = status == FPC_INVALID;
        fpc_process_result_clear(&ran);
    }
    memset(line, 0, strlen(command));
    fpc_secret_free(line);
    return status;
}
