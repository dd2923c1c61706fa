/* number.c -- numbers as text and back. */
#include "number.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* printf(3) and strtod(3) take the decimal point from the locale of the thread; this one is "C". */
static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void) {
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* Returns the locale to go back to.  If newlocale() failed the locale stays as it is. */
static locale_t enter_c_locale(void) {
    pthread_once(&c_locale_once, make_c_locale);
    return uselocale(c_locale);
}

size_t fpc_int64_text(int64_t value, char out[FPC_NUMBER_TEXT]) {
    char digits[FPC_NUMBER_TEXT];
    size_t count = 0, len = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value; /* INT64_MIN has no int64 opposite */
    do digits[count++] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    if (value < 0) out[len++] = '-';
    while (count > 0) out[len++] = digits[--count];
    out[len] = '\0';
    return len;
}

bool fpc_int64_parse(const char *text, size_t len, int64_t *out) {
    bool negative = len > 0 && text[0] == '-';
    size_t i = negative ? 1 : 0;
    if (i == len) return false;
    uint64_t magnitude = 0, limit = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    for (; i < len; i++) {
        unsigned digit = (unsigned char)text[i] - (unsigned)'0';
        if (digit > 9) return false;
        if (magnitude > (limit - digit) / 10) return false;
        magnitude = magnitude * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

#if FLT_EVAL_METHOD == 0
/* Numbers people write, such as 98.6, without printf.  A whole number below 2^53 and a power of ten
 * up to 10^22 are exact doubles and IEEE division rounds correctly, as strtod does: so when
 * m / 10^k == value, the text of m with the point k digits from its end reads back as value.
 * Fifteen digits at most, so the text is the one that "%.15g" has.  Returns 0 when there is none. */
static size_t plain_decimal_text(double value, char *out) {
    static const double POWERS[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};
    double size = fabs(value);
    if (!(size < 1e15) || (size < 1e-4 && size != 0)) return 0;
    for (size_t k = 0; k < sizeof POWERS / sizeof *POWERS; k++) {
        double scaled = size * POWERS[k];
        if (scaled >= 1e15) return 0;
        int64_t whole = (int64_t)(scaled + 0.5);
        if ((double)whole / POWERS[k] != size) continue;
        size_t len = 0;
        if (signbit(value)) out[len++] = '-';
        int64_t power = (int64_t)POWERS[k];
        len += fpc_int64_text(whole / power, out + len);
        out[len++] = '.';
        int64_t decimals = whole % power;
        for (power /= 10; power > 0; power /= 10) out[len++] = (char)('0' + decimals / power % 10);
        if (k == 0) out[len++] = '0';
        out[len] = '\0';
        return len;
    }
    return 0;
}
#else
static size_t plain_decimal_text(double value, char *out) {
    (void)value, (void)out;
    return 0; /* extra precision in the registers: the proof does not hold */
}
#endif

static size_t name_text(const char *name, char *out) {
    size_t len = strlen(name);
    memcpy(out, name, len + 1);
    return len;
}

size_t fpc_double_text(double value, char out[FPC_NUMBER_TEXT]) {
    if (isnan(value)) return name_text("NaN", out);
    if (isinf(value)) return name_text(value < 0 ? "-Infinity" : "Infinity", out);
    size_t len = plain_decimal_text(value, out);
    if (len > 0) return len;
    locale_t old = enter_c_locale();
    for (int digits = 15; digits <= 17; digits++) { /* 17 digits always suffice */
        len = (size_t)snprintf(out, FPC_NUMBER_TEXT, "%.*g", digits, value);
        if (digits == 17 || strtod(out, NULL) == value) break;
    }
    uselocale(old);
    if (strpbrk(out, ".e") == NULL) { /* digits only: it would read as an integer */
        memcpy(out + len, ".0", 3);
        len += 2;
    }
    return len;
}

static size_t skip_digits(const char *text, size_t at) {
    while (text[at] >= '0' && text[at] <= '9') at++;
    return at;
}

/* JSON's grammar of a number, so that what strtod reads beyond it (hex, "inf", blanks) is refused. */
static bool is_json_number(const char *text) {
    size_t at = text[0] == '-' ? 1 : 0, start = at;
    at = skip_digits(text, at);
    if (at == start || (text[start] == '0' && at > start + 1)) return false;
    if (text[at] == '.') {
        start = ++at;
        if ((at = skip_digits(text, at)) == start) return false;
    }
    if (text[at] == 'e' || text[at] == 'E') {
        at++;
        if (text[at] == '+' || text[at] == '-') at++;
        start = at;
        if ((at = skip_digits(text, at)) == start) return false;
    }
    return text[at] == '\0';
}

bool fpc_double_parse(const char *text, size_t len, double *out) {
    char copy[FPC_NUMBER_TEXT]; /* ends with NUL, which `text` need not do */
    if (len == 0 || len >= sizeof copy || memchr(text, '\0', len) != NULL) return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (strcmp(copy, "NaN") == 0)
        *out = NAN;
    else if (strcmp(copy, "Infinity") == 0)
        *out = INFINITY;
    else if (strcmp(copy, "-Infinity") == 0)
        *out = -INFINITY;
    else {
        if (!is_json_number(copy)) return false;
        locale_t old = enter_c_locale();
        *out = strtod(copy, NULL);
        uselocale(old);
        return isfinite(*out);
    }
    return true;
}
