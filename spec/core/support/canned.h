/* canned.h -- a server on 127.0.0.1 that reads one request and says what it was told to.
 *
 * Failures abort the program.  Thread rule: one thread besides the server's own. */
#ifndef FPC_SPEC_CANNED_H
#define FPC_SPEC_CANNED_H

/* Starts answering the next connections, one request each, with the texts in turn (the list ends with NULL;
 * "" closes without an answer, "..." keeps silent until canned_stop()).  Returns the port. */
int canned_start(const char *const *answers);

/* Ends it; what the requests said so far, one after the other.  Free it with free(). */
char *canned_stop(void);

#endif
