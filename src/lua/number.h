/* number.h -- numbers as text and back, to the last bit and in any locale.
 *
 * The text is what SQL, JSON and Python read: '.' is the decimal point whatever setlocale(3) said.
 * Knows no Lua.  Thread rule: all functions may be called from any thread. */
#ifndef FPC_LUA_NUMBER_H
#define FPC_LUA_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FPC_NUMBER_TEXT 40 /* room for the text of any number, the final NUL included */

/* Writes `value` in decimal; returns the length. */
size_t fpc_int64_text(int64_t value, char out[FPC_NUMBER_TEXT]);

/* Whether the text is an optional '-' and digits, and fits int64; stores it in `out`. */
bool fpc_int64_parse(const char *text, size_t len, int64_t *out);

/* Writes a text that reads back as the same double, with 15 digits where they suffice; returns the
 * length.  It always looks like a float ("5.0", "-0.0", "1e+300"); the three values that have no
 * digits are spelled as Python does: NaN, Infinity, -Infinity. */
size_t fpc_double_text(double value, char out[FPC_NUMBER_TEXT]);

/* Reads a JSON number, or one of the three names above.  False for any other text and for numbers
 * too large for a double. */
bool fpc_double_parse(const char *text, size_t len, double *out);

#endif
