/* rfc3339.h -- points in time as servers write them: 2026-02-06T18:00:00Z, 2026-02-06T19:00:00.123456+01:00.
 *
 * Thread rule: pure. */
#ifndef FPC_RFC3339_H
#define FPC_RFC3339_H

#include <stdbool.h>

/* Seconds since 1970, with fraction.  Takes also a blank for the "T", small letters, and a zone without its
 * colon.  False when it is anything else: a time without a zone too, since nobody knows when that is. */
bool fpc_rfc3339_parse(const char *text, double *seconds);

#endif
